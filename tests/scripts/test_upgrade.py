"""`./ship upgrade`, with git repositories on this machine: which files change, and which stay."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts.errors import Failed, Refused
from scripts.upgrade import plan
from scripts.upgrade import repository as upgrade_repository
from tests.conftest import ROOT

SETTINGS = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
ME = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
      for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))}  # fmt: skip
BRANCH = "shipway-upgrade-1.2.0"
WORKFLOW = ".github/workflows/deliver.yml"
OWNERS = "scripts/template/owners.toml"

# Its only check is that nothing is marked as broken.
SHIP = """#!/bin/sh
if [ "$1" = check ] && grep -rq BROKEN scripts; then
    echo "scripts: broken"
    exit 1
fi
"""
LINES = "".join(f"line {number}\n" for number in range(1, 13))

FIRST = {
    ".gitignore": "/.shipway\n",
    WORKFLOW: LINES,
    "HELP.md": "help\n",
    "README.md": "The template's\n",
    "app/main.py": "sample\n",
    "cloudbuild/deliver.yaml": "build\n",
    "docs/CHANGELOG.md": "# Changelog\n\n## 1.0.0\n\nThe first.\n",
    "pipelines/app/service.yaml": "name: app\n",
    "pipelines/schema.json": "{}\n",
    "scripts/gone.py": "gone\n",
    "scripts/old.py": LINES,
    "scripts/same.py": "same\n",
    "scripts/status.py": LINES,
    "scripts/template/VERSION": "1.0.0\n",
    OWNERS: (ROOT / OWNERS).read_text(),
    "ship": SHIP,
    "tests/app/test_it.py": "sample\n",
}
SECOND = {
    WORKFLOW: LINES.replace("line 1\n", "line 1, new\n"),
    "docs/CHANGELOG.md": "# Changelog\n\n## 1.1.0\n\nThe second.\n\n## 1.0.0\n\nThe first.\n",
    "scripts/old.py": None,
    "scripts/moved.py": LINES,
    "scripts/status.py": LINES.replace("line 1\n", "line 1, new\n"),
    "scripts/template/VERSION": "1.1.0\n",
}
THIRD = {
    "README.md": "The template's, new\n",
    "app/main.py": "sample, new\n",
    "app/more.py": "sample\n",
    "cloudbuild/deliver.yaml": "build, new\n",
    "docs/CHANGELOG.md": "# Changelog\n\n## 1.2.0\n\nThe third: *do* this.\n\n## 1.1.0\n\nThe"
    " second.\n\n## 1.0.0\n\nThe first.\n",
    "pipelines/schema.json": '{"new": true}\n',
    "scripts/added/new.py": "added\n",
    "HELP.md": None,
    "docs/HELP.md": "help\n",
    "scripts/gone.py": None,
    "scripts/moved.py": LINES.replace("line 12\n", "line 12, new\n"),
    "scripts/template/VERSION": "1.2.0\n",
}


class Repository:
    """A git repository on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *SETTINGS, *words], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def write(self, **files: str | None) -> None:
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                path.chmod(0o755 if name == "ship" else 0o644)

    def commit(self, subject: str, **files: str | None) -> str:
        self.write(**files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.git("rev-parse", "HEAD")

    def show(self, name: str, commit: str = BRANCH) -> str:
        return self.git("show", f"{commit}:{name}")

    def files(self, commit: str = BRANCH) -> set[str]:
        return set(self.git("ls-tree", "-r", "--name-only", commit).splitlines())


class Fork(Repository):
    """A repository made from the template."""

    def __init__(self, folder: Path, template: Repository) -> None:
        super().__init__(folder)
        self.template = template

    def upgrade(
        self, *words: str, source: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        more = ["--from", str(self.template.folder)] if source else []
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts"), "upgrade", *more, *words], cwd=self.folder,
            env={**os.environ, **ME, **env}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=60,
        )  # fmt: skip

    def upgraded(self, *words: str, **env: str) -> str:
        done = self.upgrade(*words, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def state(self) -> list[str]:
        """Return the state that an upgrade must keep: branch, index, work tree, other refs."""
        references = self.git("for-each-ref", "--format=%(refname) %(objectname)")
        kept = [line for line in references.splitlines() if "/shipway-upgrade-" not in line]
        status = self.git("status", "--porcelain=v2", "--branch", "--untracked-files=all")
        return [*kept, status, self.git("stash", "list")]

    @property
    def has_scratch_tree(self) -> bool:
        return "shipway-upgrade" in self.git("worktree", "list")

    @property
    def record(self) -> dict[str, object]:
        return tomllib.loads(self.show(".shipway.toml"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return Shipway with three versions, and a commit after the first of them."""
    made = Repository(tmp_path_factory.mktemp("template"))
    made.git("init", "--quiet", "--initial-branch=main")
    made.commit("First", **FIRST)
    made.git("tag", "v1.0.0")
    made.commit("Between", **{"scripts/same.py": "between\n"})
    made.git("branch", "between")
    made.commit("Second", **SECOND)
    made.git("tag", "--annotate", "--message", "1.1.0", "v1.1.0")
    made.commit("Third", **THIRD)
    made.git("tag", "v1.2.0")
    made.git("tag", "not-a-version")
    return made


@pytest.fixture
def fork(tmp_path: Path, template: Repository) -> Fork:
    """Return a fork with Shipway's history, from its first version, and its own service."""
    template.git("clone", "--quiet", "--branch", "v1.0.0", ".", str(tmp_path / "fork"))
    made = Fork(tmp_path / "fork", template)
    made.git("switch", "--quiet", "--create", "main")
    made.git("remote", "remove", "origin")
    for tag in made.git("tag").splitlines():
        made.git("tag", "--delete", tag)
    made.commit("Ours", **{"app/main.py": "ours\n", "README.md": "Ours\n"})
    return made


@pytest.fixture
def copy(tmp_path: Path, template: Repository) -> Fork:
    """Return a copy as "Use this template" makes it: one commit with the template's files."""
    made = Fork(tmp_path / "copy", template)
    template.git("worktree", "add", "--quiet", "--detach", str(made.folder), "between")
    (made.folder / ".git").unlink()
    template.git("worktree", "prune")
    made.git("init", "--quiet", "--initial-branch=main")
    made.commit("Initial commit")
    made.commit("Ours", **{"app/main.py": "ours\n", "README.md": "Ours\n"})
    return made


@pytest.mark.parametrize("kind", ["fork", "copy"])
def test_a_fork_and_a_copy_get_the_newest_version(
    kind: str, request: pytest.FixtureRequest, template: Repository
) -> None:
    ours: Fork = request.getfixturevalue(kind)
    hook = ours.folder / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {ours.folder}/hook-ran\n")
    hook.chmod(0o755)
    before, head = ours.state(), ours.git("rev-parse", "HEAD")
    said = ours.upgraded()
    how = {"fork": "a fork with Shipway's history", "copy": "a copy of the template"}
    assert f"from 1.0.0 ({how[kind]}) to 1.2.0" in said
    assert ours.state() == before, "and no hook of the user's ran"
    assert ours.git("rev-parse", f"{BRANCH}^@") == head, "one commit on the current one"
    mine = {"app/main.py": "ours", "README.md": "Ours", "tests/app/test_it.py": "sample"}
    for name in sorted(ours.files() | template.files("v1.2.0")):
        if name in mine:
            assert ours.show(name) == mine[name]
        elif name == "app/more.py":
            assert name not in ours.files(), "the sample's: not of interest to a fork"
        elif name.startswith("pipelines/app/"):
            assert ours.show(name) == ours.show(name, head)
        elif name != ".shipway.toml":
            assert ours.show(name) == template.show(name, "v1.2.0"), name
    assert not {"scripts/gone.py", "HELP.md"} & ours.files()
    assert ours.record["version"] == "1.2.0"
    assert ours.record["source"] == str(template.folder)
    assert ours.record["commit"] == template.git("rev-parse", "v1.2.0^{commit}")
    message = ours.git("show", "--no-patch", "--format=%B", BRANCH)
    assert message.startswith("Upgrade Shipway from 1.0.0 to 1.2.0\n\n**1.2.0**\n\nThe third: *do*")
    assert "The first." not in message
    assert not ours.has_scratch_tree
    assert not list((ours.folder / ".shipway").glob("upgrade/*"))


def test_the_next_upgrade_continues_from_the_record(copy: Fork) -> None:
    copy.upgraded("--to", "1.1.0")
    copy.git("merge", "--quiet", "--squash", "shipway-upgrade-1.1.0")
    copy.commit("Upgrade")
    assert copy.show("scripts/moved.py", "HEAD") == LINES.strip()
    assert "scripts/old.py" not in copy.files("HEAD")
    said = copy.upgrade(source=False)
    assert said.returncode == 0, said.stderr
    assert "from 1.1.0 (upgraded before) to 1.2.0" in said.stderr
    assert copy.files() - copy.template.files("v1.2.0") == {".shipway.toml"}
    assert copy.show("scripts/moved.py").endswith("line 12, new")


def test_a_copy_with_another_first_commit_is_found_by_its_version(
    tmp_path: Path, copy: Fork
) -> None:
    """A fork of the version without `upgrade`, which has no list of owners."""
    shutil.rmtree(copy.folder / "scripts/template")
    copy.write(**{"pyproject.toml": '[project]\nname = "shipway"\nversion = "1.0.0"\n'})
    shutil.rmtree(copy.folder / ".git")
    copy.git("init", "--quiet", "--initial-branch=main")
    copy.commit("Ours from the start", **{"app/main.py": "ours\n"})
    # pyproject.toml is the fork's change to a file of Shipway's, as this template has none.
    said = copy.upgraded("--keep", "pyproject.toml", "--overwrite")
    assert "(a copy, by its version number)" in said
    assert copy.show("scripts/same.py") == "between"
    assert copy.show("app/main.py") == "ours"
    assert copy.record["version"] == "1.2.0"


# Changes on both sides


def test_changes_of_both_sides_are_merged(fork: Fork) -> None:
    ours = LINES.replace("line 12\n", "line 12, ours\n")
    fork.commit("Our workflow", **{WORKFLOW: ours, "cloudbuild/deliver.yaml": None,
                                   ".github/workflows/own.yml": "own\n"})  # fmt: skip
    said = fork.upgraded()
    merged = fork.show(WORKFLOW).splitlines()
    assert (merged[0], merged[-1]) == ("line 1, new", "line 12, ours")
    assert "merged" in said
    assert fork.show(".github/workflows/own.yml") == "own"
    assert "cloudbuild/deliver.yaml" not in fork.files()
    assert "cloudbuild/deliver.yaml: you deleted it, and the new version changes it" in said


def test_a_conflict_is_marked_and_reported_and_the_branch_is_made(fork: Fork) -> None:
    fork.commit("Our workflow", **{WORKFLOW: LINES.replace("line 1\n", "line 1, ours\n")})
    before = fork.state()
    done = fork.upgrade()
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"conflicts to resolve: {WORKFLOW}" in done.stdout
    text = fork.show(WORKFLOW)
    assert (
        "<<<<<<< this repository\nline 1, ours\n=======\nline 1, new\n>>>>>>> Shipway 1.2.0" in text
    )
    assert f"- {WORKFLOW}" in fork.git("show", "--no-patch", "--format=%B", BRANCH)
    assert fork.state() == before


def test_a_fork_that_init_renamed_is_upgraded(fork: Fork) -> None:
    """The service's folder has another name, and the workflow another environment."""
    fork.git("mv", "pipelines/app", "pipelines/orders")
    fork.commit("Make it ours", **{"pipelines/orders/service.yaml": "name: orders\n",
                                   WORKFLOW: LINES.replace("line 8", "line 8, ours")})  # fmt: skip
    fork.upgraded()
    assert {n for n in fork.files() if n.startswith("pipelines/")} == {
        "pipelines/orders/service.yaml", "pipelines/schema.json",
    }  # fmt: skip
    assert fork.show("pipelines/schema.json") == '{"new": true}'
    assert fork.show("pipelines/orders/service.yaml") == "name: orders"
    assert "line 8, ours" in fork.show(WORKFLOW)


# Shipway's files, changed in the fork


def test_changed_files_of_shipways_wait_for_a_decision(fork: Fork) -> None:
    mine = LINES.replace("line 6\n", "line 6, ours\n")
    fork.commit("Change Shipway", **{"scripts/status.py": mine, "scripts/old.py": mine,
                                     "ship": None, "scripts/own.py": "own\n"})  # fmt: skip
    before = fork.state()
    done = fork.upgrade()
    assert done.returncode == 3
    listed = [line for line in done.stderr.splitlines() if line.startswith("  | ")]
    assert listed == [
        "  | changed: scripts/old.py", "  | changed: scripts/status.py", "  | deleted: ship",
    ]  # fmt: skip
    assert fork.state() == before
    assert BRANCH not in fork.git("branch")
    assert fork.upgrade("--keep", "scripts/old.py").returncode == 3, "two are not decided"
    fork.upgraded("--keep", "scripts/status.py", "--keep", "scripts/old.py", "--overwrite")
    status = fork.show("scripts/status.py").splitlines()
    assert (status[0], status[5]) == ("line 1, new", "line 6, ours")
    moved = fork.show("scripts/moved.py").splitlines()
    assert (moved[5], moved[-1]) == ("line 6, ours", "line 12, new"), "the change moved along"
    assert "scripts/old.py" not in fork.files()
    assert "ship" in fork.files()
    assert fork.show("scripts/own.py") == "own"
    assert fork.record["keep"] == ["scripts/moved.py", "scripts/status.py"]


def test_what_is_kept_is_kept_by_the_next_upgrade(fork: Fork) -> None:
    fork.commit("Change Shipway", ship=f"{SHIP}# ours\n")
    fork.upgraded("--to", "1.1.0", "--keep", "ship")
    fork.git("merge", "--quiet", "shipway-upgrade-1.1.0")
    recorded = (fork.folder / ".shipway.toml").read_text()
    fork.commit("Our runners", **{".shipway.toml": f"{recorded}self_hosted_runners = true\n"})
    fork.upgraded()
    assert fork.show("ship").endswith("# ours")
    assert fork.record["keep"] == ["ship"]
    assert fork.record["self_hosted_runners"] is True
    [executable] = fork.git("ls-tree", BRANCH, "ship").splitlines()
    assert executable.startswith("100755 ")


def test_a_kept_file_that_moves_is_kept_where_it_is_then(fork: Fork) -> None:
    fork.commit("Change", **{"scripts/old.py": LINES.replace("line 6\n", "line 6, ours\n")})
    fork.upgraded("--to", "1.1.0", "--keep", "scripts/old.py")
    fork.git("merge", "--quiet", "shipway-upgrade-1.1.0")
    fork.upgraded()
    assert fork.record["keep"] == ["scripts/moved.py"]
    assert "line 6, ours\n" in fork.show("scripts/moved.py")
    assert fork.show("scripts/moved.py").endswith("line 12, new")


def test_a_file_of_the_forks_in_the_way_of_a_folder_is_not_lost(fork: Fork) -> None:
    fork.commit("Ours", **{"scripts/added": "ours"})
    before = fork.state()
    done = fork.upgrade("--overwrite")
    assert done.returncode == 3
    assert "  | scripts/added: the new version has scripts/added/new.py" in done.stderr
    assert "rename" in done.stderr
    assert fork.state() == before


# The remains of an upgrade


def test_an_upgrade_that_was_made_is_not_made_again(fork: Fork) -> None:
    fork.upgraded()
    made = fork.git("rev-parse", BRANCH)
    said = fork.upgraded()
    assert f"the branch {BRANCH} already exists; nothing changed" in said
    assert f"To make it again: git branch -D {BRANCH} && ./ship upgrade --from" in said
    assert fork.git("rev-parse", BRANCH) == made
    fork.git("update-ref", f"refs/remotes/origin/{BRANCH}", BRANCH)
    assert f"git branch -D {BRANCH} && git push origin --delete {BRANCH} && ./ship" in (
        fork.upgraded()
    )
    fork.git("branch", "--quiet", "-D", BRANCH)
    assert f"To make it again: git push origin --delete {BRANCH} && ./ship" in fork.upgraded()
    fork.git("branch", BRANCH, made)
    fork.git("merge", "--quiet", BRANCH)
    assert "already up to date" in fork.upgraded()


def test_uncommitted_work_stays(fork: Fork) -> None:
    fork.write(**{"app/main.py": "not committed\n", "app/new.py": "new\n", "ship": f"{SHIP}#\n"})
    fork.git("add", "app/main.py")
    before = fork.state()
    said = fork.upgraded()
    assert "uncommitted changes are not part of the branch" in said
    assert fork.state() == before
    assert fork.show("app/main.py") == "ours"
    assert (fork.folder / "app/main.py").read_text() == "not committed\n"


GIT = """#!/bin/sh
# The real git, until the call whose number is in $KILL_AT: that one ends its caller.
echo "$*" >> "$CALLS"
number=$(wc -l < "$CALLS")
[ "$number" -ne "$KILL_AT" ] || [ "$WHEN" = after ] || { kill -9 $PPID; exit 1; }
"$REAL_GIT" "$@"
code=$?
[ "$number" -ne "$KILL_AT" ] || kill -9 $PPID
exit $code
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_anywhere_it_leaves_nothing_or_the_branch(
    fork: Fork, tmp_path: Path, when: str
) -> None:
    """SIGKILL before or after each call of git; the next upgrade works, without any repair."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(GIT)
    program.chmod(0o755)
    calls = tmp_path / "calls"
    env = {"CALLS": str(calls), "WHEN": when, "REAL_GIT": str(shutil.which("git")),
           "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    before = fork.state()
    killed_in = set()
    for number in range(1, 99, 3 if when == "before" else 4):
        calls.write_text("")
        done = fork.upgrade(KILL_AT=str(number), **env)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        command = re.sub(r"^(-[cC] \S+ )*", "", calls.read_text().splitlines()[-1])
        killed_in.add(command.split()[0])
        assert fork.state() == before
        if BRANCH in fork.git("branch"):
            assert fork.record["version"] == "1.2.0", "complete"
            fork.git("branch", "--quiet", "-D", BRANCH)
    else:
        pytest.fail("it never came to its end")
    assert len(killed_in) > 5, killed_in
    assert fork.record["version"] == "1.2.0"
    assert not fork.has_scratch_tree
    assert not list((fork.folder / ".shipway").glob("upgrade/*"))


def test_a_work_tree_that_was_killed_while_it_was_made_is_no_obstacle(fork: Fork) -> None:
    """git locks a work tree while it makes it, and leaves the lock when it is killed."""
    tree = fork.folder / ".shipway/upgrade/shipway-upgrade"
    fork.git("worktree", "add", "--quiet", "--detach", str(tree))
    (fork.folder / ".git/worktrees/shipway-upgrade/locked").write_text("initializing")
    (tree / "left").write_text("half")
    fork.upgraded()
    assert not fork.has_scratch_tree


def test_a_branch_that_was_made_in_the_meantime_stays(fork: Fork, tmp_path: Path) -> None:
    repository = upgrade_repository.Repository(fork.folder, tmp_path)
    fork.git("branch", BRANCH, "HEAD~1")
    with pytest.raises(Refused, match=f"the branch {BRANCH} was created in the meantime"):
        repository.make_branch(BRANCH, repository.head)
    assert fork.git("rev-parse", BRANCH) == fork.git("rev-parse", "HEAD~1")
    fork.git("branch", "--move", BRANCH, f"{BRANCH}/ours")
    with pytest.raises(Refused) as refused:
        repository.make_branch(BRANCH, repository.head)
    assert f"{BRANCH}/ours" in "".join(refused.value.evidence)


@pytest.mark.parametrize("path", ["docs/../app/main.py", "docs/.git/config", ".git/config"])
def test_a_path_that_git_does_not_allow_is_an_error(fork: Fork, tmp_path: Path, path: str) -> None:
    """Git itself leaves such a file out and reports success."""
    repository = upgrade_repository.Repository(fork.folder, tmp_path)
    file = plan.File("100644", fork.git("rev-parse", "HEAD:ship"))
    with pytest.raises(Failed, match="a path that git does not allow") as failed:
        repository.commit({path: file}, "Evil")
    assert path in "".join(failed.value.evidence)


def test_two_at_once_take_turns(fork: Fork) -> None:
    (fork.folder / ".shipway").mkdir()
    with (fork.folder / ".shipway/upgrade.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = fork.upgrade()
    assert done.returncode == 3
    assert "another ./ship upgrade is running" in done.stderr


def test_a_result_that_fails_its_check_is_kept_for_review(fork: Fork) -> None:
    fork.commit("Ours", **{"scripts/own.py": "BROKEN\n"})
    done = fork.upgrade()
    assert done.returncode == 1
    assert "scripts: broken" in done.stdout
    assert "./ship check fails on the branch" in done.stdout
    assert fork.record["version"] == "1.2.0"
    fork.git("branch", "--quiet", "-D", BRANCH)
    fork.upgraded("--unchecked")


# --check, and wrong options


def test_check_lists_the_changes_in_a_newer_version(fork: Fork) -> None:
    before = fork.state()
    done = fork.upgrade("--check")
    assert done.returncode == 4, done.stderr
    assert "The third: *do* this." in done.stdout
    assert "The second." in done.stdout
    assert "The first." not in done.stdout
    assert f"To upgrade: ./ship upgrade --from {fork.template.folder}" in done.stdout
    assert fork.state() == before
    assert not fork.git("branch", "--list", "shipway-*")
    data = json.loads(fork.upgrade("--check", "--to", "v1.1.0", "--format", "json").stdout)
    assert (data["version"], data["newest"]) == ("1.0.0", "1.2.0")
    assert data["changes"] == "## 1.1.0\n\nThe second."
    assert fork.upgrade("--check", "--to", "1.0.0").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "7.0.0"], "--to 7.0.0: no such version"),
        (["--to", "next"], "--to next: no such version"),
        (["--keep", "app/main.py"], "--keep app/main.py: not one of Shipway's files"),
        (["--keep", "scripts/nonsense.py"], "--keep scripts/nonsense.py: there is no such file"),
        (["--keep", "scripts/"], "--keep scripts/: there is no such file"),
        (["--keep", "./ship"], "--keep ./ship: there is no such file"),
        (["--from", "https://me:secret@example.com/x.git"], "contains a user name or a password"),
        (["--from", "--upload-pack=x"], "expected one argument"),
        (["--from=--upload-pack=x"], "is not the URL of a git repository"),
    ],
)
def test_a_wrong_option_changes_nothing(fork: Fork, words: list[str], said: str) -> None:
    before = fork.state()
    done = fork.upgrade(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert fork.state() == before


def test_without_a_name_for_the_commit_it_says_how_to_set_one(fork: Fork, tmp_path: Path) -> None:
    before = fork.state()
    nobody = dict.fromkeys(ME, "")
    done = fork.upgrade(**nobody, HOME=str(tmp_path / "home"), GIT_CONFIG_NOSYSTEM="1")
    assert done.returncode == 2, done.stderr
    assert "git does not know your name" in done.stderr
    assert "git config --global user.email" in done.stderr
    assert fork.state() == before


def test_a_version_older_than_the_forks_is_refused(fork: Fork) -> None:
    fork.upgraded("--to", "1.1.0")
    fork.git("merge", "--quiet", "shipway-upgrade-1.1.0")
    done = fork.upgrade("--to", "1.0.0")
    assert done.returncode == 2
    assert "this repository has 1.1.0, which is newer" in done.stderr


def test_a_repository_without_versions_or_none_at_all(fork: Fork, tmp_path: Path) -> None:
    done = fork.upgrade("--from", str(fork.folder))
    assert done.returncode == 2
    assert "has no version" in done.stderr
    done = fork.upgrade("--from", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert f"ship: cannot read {tmp_path}/nowhere" in done.stderr
    assert f"-> check the URL and your access: git ls-remote {tmp_path}/nowhere" in done.stderr


GH = """#!/bin/sh
[ "$*" = "api --hostname=github.com --include --method=GET repos/acme/shop" ] || exit 1
printf 'HTTP/2.0 200 OK\n\n{"template_repository": {"clone_url": "%s"}}' "$TEMPLATE"
"""


def test_gh_knows_where_a_repository_was_made_from(fork: Fork, tmp_path: Path) -> None:
    """A stand-in for gh, which answers as GitHub does for a copy."""
    done = fork.upgrade(source=False)
    assert done.returncode == 2
    assert "the repository that Shipway comes from is not known" in done.stderr
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(GH)
    program.chmod(0o755)
    fork.git("remote", "add", "origin", "git@github.com:acme/shop.git")
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = fork.upgrade(source=False, PATH=path, TEMPLATE=str(fork.template.folder))
    assert done.returncode == 0, done.stderr
    assert fork.record["source"] == str(fork.template.folder)


def test_a_folder_of_a_larger_repository_is_not_upgraded(fork: Fork, tmp_path: Path) -> None:
    outer = Repository(tmp_path)
    shutil.rmtree(fork.folder / ".git")
    outer.git("init", "--quiet")
    outer.commit("All")
    done = fork.upgrade()
    assert done.returncode == 2
    assert "an upgrade needs Shipway at the top" in done.stderr
