"""A fork of this repository: the files that `test` and `check` cover, and its upgrade."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.template import record, version
from tests import warm
from tests.conftest import ROOT
from tests.scripts.test_init import ANSWERS, ME

NEXT = "9.9.9"
BRANCH = f"shipway-upgrade-{NEXT}"
pytestmark = pytest.mark.skipif(
    (ROOT / record.FILE).exists(), reason="left out: this is a fork, and no template for others"
)
FORKS, WHOLE = "this fork's tests: tests/app, tests/test_workflows.py", "the whole suite: "


class Folder:
    """A git repository with the command line in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *ME, *words], cwd=self.path, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, subject: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)

    def change(self, name: str, before: str, after: str) -> None:
        text = (self.path / name).read_text()
        assert before in text
        (self.path / name).write_text(text.replace(before, after, 1))

    def ship(self, *words: str) -> subprocess.CompletedProcess[str]:
        identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER")
                    for what in ("NAME", "EMAIL")}  # fmt: skip
        return subprocess.run(
            ["./ship", *words], cwd=self.path, stdin=subprocess.DEVNULL, capture_output=True,
            env={**os.environ, **identity, "SHIPWAY_VENV": warm.environment()}, text=True,
            check=False, timeout=120,
        )  # fmt: skip

    def chosen(self) -> str:
        """Return the tests that `./ship test` prints; pytest itself only prints its version."""
        return self.ship("test", "--version").stderr.splitlines()[0]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return this repository's work tree as a repository, with a later version."""
    made = Folder(tmp_path_factory.mktemp("template"))
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name != record.FILE:
            (made.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, made.path / name)
    shutil.rmtree(made.path / "pipelines")
    shutil.copytree(ROOT / "tests/pipelines", made.path / "pipelines")
    shutil.copy(ROOT / "pipelines/schema.json", made.path / "pipelines")
    made.git("init", "--quiet", "--initial-branch=main")
    made.commit("This version")
    made.git("tag", f"v{version.current()}")
    made.change("scripts/template/VERSION", version.current(), NEXT)
    made.change("scripts/status.py", '"""', '"""Newer. ')
    made.change(".github/workflows/deliver.yml", "name: Deliver", "name: Deliver it")
    made.commit("The next version")
    made.git("tag", f"v{NEXT}")
    return made


@pytest.fixture(scope="module")
def made_fork(template: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return a copy of the template after `./ship init`, with an app in its own style."""
    made = Folder(tmp_path_factory.mktemp("fork"))
    archive = subprocess.run(
        ["git", "archive", f"v{version.current()}"],
        cwd=template.path,
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "-x"], cwd=made.path, input=archive.stdout, check=True)
    made.git("init", "--quiet", "--initial-branch=main")
    made.commit("Initial commit")
    done = made.ship("init", "orders", *ANSWERS, "--yes")
    assert done.returncode == 0, done.stderr
    (made.path / "app/own.py").write_text("import os,sys\nx = ( 1 )\n")
    made.commit("Make it ours")
    return made


@pytest.fixture
def fork(made_fork: Folder, tmp_path: Path) -> Folder:
    made_fork.git("clone", "--quiet", ".", str(tmp_path / "fork"))
    return Folder(tmp_path / "fork")


def test_in_a_fork_the_forks_tests_run(fork: Folder) -> None:
    assert FORKS in fork.chosen()
    collected = fork.ship("test", "--collect-only", "-n0").stdout
    files = {line.partition("::")[0] for line in collected.splitlines() if "::" in line}
    assert "tests/test_workflows.py" in files
    assert {name for name in files if not name.startswith("tests/app/")} == {
        "tests/test_workflows.py"
    }
    (fork.path / "app/own.py").write_text("changed = True\n")
    (fork.path / "docs/own.md").write_text("A page of the fork's.\n")
    (fork.path / "tests/app/test_own.py").write_text("def test_it():\n    pass\n")
    assert FORKS in fork.chosen(), "what is the fork's is no reason for Shipway's suite"
    shutil.rmtree(fork.path / "tests/app")
    assert "this fork's tests: tests/test_workflows.py (" in fork.chosen()


@pytest.mark.parametrize("how", ["edited", "committed", "deleted", "added"])
def test_where_shipways_files_differ_all_tests_run(fork: Folder, how: str) -> None:
    if how == "deleted":
        (fork.path / "scripts/logs.py").unlink()
    elif how == "added":
        (fork.path / "scripts/own.py").write_text("")
    else:
        fork.change("scripts/status.py", '"""', '"""Ours. ')
    if how == "committed":
        fork.commit("Ours")
    wanted = f"{WHOLE}Shipway's files are not those of version {version.current()}"
    assert fork.chosen() == wanted


def test_in_shipways_own_repository_all_tests_run(template: Folder) -> None:
    assert template.chosen().startswith(f"{WHOLE}without .shipway.toml")


def test_a_forks_workflow_with_an_identity_keeps_the_rules(fork: Folder) -> None:
    """`./ship test` with a fork's own action; its own workflow, which gets none, is its own."""
    (fork.path / "app/Dockerfile").write_text("FROM python\n")  # hadolint would find something
    workflows = fork.path / ".github/workflows"
    for name in ("deliver.yml", "rollback.yml"):
        (workflows / name).unlink()
    own = (workflows / "ci.yml").read_text().replace("name: CI", "name: Own")
    (workflows / "own.yml").write_text(re.sub(r"checkout@\w+", "checkout@v1", own))
    fork.change(".github/workflows/build.yml", "actions/checkout@", "acme/own@")
    shutil.rmtree(fork.path / "tests/app")
    done = fork.ship("test", "-n0")
    assert done.returncode == 0, done.stdout
    build = workflows / "build.yml"
    build.write_text(re.sub(r"acme/own@\w+", "acme/own@v1", build.read_text()))
    done = fork.ship("test", "-n0", "-k", "rules_hold")
    assert done.returncode == 1
    assert "acme/own: not pinned" in done.stdout


def test_the_samples_tests_pass_once_init_has_renamed_the_service(fork: Folder) -> None:
    mine = (ROOT / "pipelines/app/service.yaml").read_text()
    [concurrency] = [line for line in mine.splitlines() if "containerConcurrency" in line]
    manifest = fork.path / "pipelines/orders/service.yaml"
    manifest.write_text(re.sub(".*containerConcurrency.*", concurrency, manifest.read_text()))
    done = fork.ship("test", "tests/app/test_sample_image.py", "-n0")
    assert done.returncode == 0, done.stdout


def test_arguments_are_pytests(fork: Folder) -> None:
    named = fork.ship("test", "tests/app/test_sample_answers.py::nothing", "-k", "x", "--version")
    assert "suite" not in named.stderr
    assert "this fork's" not in named.stderr
    everything = fork.ship("test", "--all", "--version")
    assert "this fork's" not in everything.stderr


def test_to_see_whether_shipways_files_differ_takes_little(fork: Folder) -> None:
    recorded = record.read(fork.path)
    assert recorded is not None
    before = os.times()
    assert record.is_unchanged(fork.path, recorded)
    took = [after - before for before, after in zip(before[:4], os.times()[:4], strict=True)]
    assert sum(took) < 2, "of the processor, for all files"


def test_check_leaves_the_forks_style_to_the_fork(fork: Folder) -> None:
    done = fork.ship("check")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "pipelines/orders: local, production, staging are valid" in done.stderr
    assert f"Shipway's files are those of version {version.current()}" in done.stderr
    fork.change("scripts/status.py", '"""', "import os\n" + '"""')
    lint = fork.ship("check", "lint")
    assert lint.returncode != 0
    assert "scripts/status.py" in lint.stdout + lint.stderr
    assert "app/own.py" not in lint.stdout + lint.stderr
    assert max(map(len, (lint.stdout + lint.stderr).splitlines())) < 500, "a list of all files"


def test_check_finds_what_is_wrong_in_pipelines(fork: Folder) -> None:
    fork.change("pipelines/orders/staging.yaml", "project:", "projekt:")
    done = fork.ship("check")
    assert done.returncode == 2
    assert "pipelines/orders/staging.yaml:" in done.stderr
    fork.change("pipelines/orders/staging.yaml", "projekt:", "project:")
    fork.change("pipelines/orders/service.yaml", "memory: 512Mi", "memory: 512GB")
    done = fork.ship("check")
    assert done.returncode == 2
    assert "pipelines/orders/service.yaml:" in done.stderr
    assert "'512GB'" in done.stderr


def test_the_real_tree_is_upgraded(fork: Folder, template: Folder) -> None:
    """With the real `./ship check` on the result, in a fork that `./ship init` renamed."""
    fork.change(".github/workflows/deliver.yml", "on:\n", "on: # ours\n")
    fork.commit("Our workflow")
    done = fork.ship("upgrade", "--from", str(template.path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"from {version.current()} (a copy of the template) to {NEXT}" in done.stderr
    fork.git("switch", "--quiet", BRANCH)
    changed = fork.git("diff", "--name-only", "main").splitlines()
    assert changed == [
        ".github/workflows/deliver.yml", ".shipway.toml", "scripts/status.py",
        "scripts/template/VERSION",
    ]  # fmt: skip
    workflow = (fork.path / ".github/workflows/deliver.yml").read_text()
    assert "name: Deliver it" in workflow
    assert "on: # ours" in workflow
    assert FORKS in fork.chosen()
    assert fork.ship("--version").stdout.strip() == NEXT


GH = """#!/bin/sh
# Stands in for GitHub's command line: notes how it is called, and counts the issues in $ISSUES.
echo "$*" >> "$CALLED"
case "$1 $2" in
"issue list") wc -l < "$ISSUES" ;;
"issue create") cat >> "$ISSUES" ;;
esac
"""


class Weekly:
    """The shell of upgrade.yml's steps, in fresh clones of a repository; gh is a stand-in."""

    def __init__(self, fork: Folder, template: Folder, folder: Path) -> None:
        self.folder = folder
        with (fork.path / record.FILE).open("a") as file:
            file.write(f'source = "{template.path}"\n')
        fork.commit("Where Shipway comes from")
        self.origin = Folder(folder / "origin.git")
        fork.git("clone", "--quiet", "--bare", ".", str(self.origin.path))
        program = folder / "bin" / "gh"
        program.parent.mkdir()
        program.write_text(GH)
        program.chmod(0o755)
        self.called, self.issues = folder / "called", folder / "issues"
        self.issues.touch()

    def run(self, *names: str) -> dict[str, str]:
        """Run steps in a fresh clone; return the outputs of the first."""
        clone = Folder(self.folder / f"clone{len(list(self.folder.glob('clone*')))}")
        self.origin.git("clone", "--quiet", ".", str(clone.path))
        document = yaml.safe_load((clone.path / ".github/workflows/upgrade.yml").read_text())
        steps = {step["name"]: step for step in document["jobs"]["upgrade"]["steps"]}
        self.called.write_text("")
        outputs = self.folder / "outputs"
        outputs.write_text("")
        made: dict[str, str] = {}
        for name in ("Put the new version on a branch", *names):
            step = steps[name]
            env = {key: value for key, value in step["env"].items() if "${{" not in value}
            env |= {"BRANCH": made.get("branch", ""), "CALLED": str(self.called),
                    "TITLE": f"Shipway {made.get('version')} is out", "ISSUES": str(self.issues),
                    "GITHUB_OUTPUT": str(outputs), "SHIPWAY_VENV": warm.environment(),
                    "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
            subprocess.run(
                ["bash", "-e", "-c", step["run"]], cwd=clone.path, env={**os.environ, **env},
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            made = made or {
                block.partition("<<")[0]: block.splitlines()[1]
                for block in re.findall(r"(?m)^\w+<<.*\n.*\n", outputs.read_text())
            }
        return made


def test_the_weekly_workflow_opens_one_pull_request(
    fork: Folder, template: Folder, tmp_path: Path
) -> None:
    weekly = Weekly(fork, template, tmp_path)
    assert weekly.run("Open a pull request")["branch"] == BRANCH
    assert weekly.called.read_text() == f"auth setup-git\npr create --head {BRANCH} --fill\n"
    title = weekly.origin.git("show", "--no-patch", "--format=%an: %s", BRANCH)
    assert title == f"github-actions[bot]: Upgrade Shipway from {version.current()} to {NEXT}"
    assert "branch" not in weekly.run(), "a week later the branch exists: nothing more happens"


def test_without_a_token_the_weekly_workflow_opens_one_issue(
    fork: Folder, template: Folder, tmp_path: Path
) -> None:
    weekly = Weekly(fork, template, tmp_path)
    weekly.run("Open an issue")
    asked, made = weekly.called.read_text().splitlines()
    title = f"Shipway {NEXT} is out"
    assert asked.startswith(f'issue list --state all --search in:title "{title}" ')
    assert made == f"issue create --title {title} --body-file -"
    assert "To upgrade: ./ship upgrade" in weekly.issues.read_text()
    assert BRANCH not in weekly.origin.git("branch")
    weekly.run("Open an issue")
    assert len(weekly.called.read_text().splitlines()) == 1, "a week later it is not opened again"
