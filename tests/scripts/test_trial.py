"""`./ship trial` reports whether a commit can be delivered, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.conftest import Project
from tests.scripts.docker_help import needs_docker


class Trials:
    """Trials of a project's commits, which must leave nothing in `scratch`."""

    def __init__(self, project: Project, scratch: Path) -> None:
        self.project = project
        self.scratch = scratch
        scratch.mkdir()

    def ship(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        how = () if {"--builder", "--runtime"} & set(arguments) else ("--builder", "cloud-build")
        ended = self.project.ship("trial", *how, *arguments, TMPDIR=str(self.scratch), **env)
        assert "Traceback" not in ended.stderr
        assert self.left() == []
        return ended

    def rows(self, *arguments: str) -> list[tuple[str, str]]:
        """Return each step of a trial that passed, and its result."""
        ended = self.ship(*arguments, "--format", "json")
        assert ended.returncode == 0, ended.stderr
        document = json.loads(ended.stdout)
        assert document["passed"]
        return [(row["step"], row["result"]) for row in document["steps"]]

    def left(self) -> list[str]:
        """Return files, and processes that work in `scratch` or name it."""
        found = [str(path) for path in self.scratch.iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                says = (process / "cmdline").read_text() + os.readlink(process / "cwd")
            except OSError:
                continue
            if str(self.scratch) in says:
                found.append(says)
        return found


@pytest.fixture
def trials(project: Project, tmp_path: Path) -> Trials:
    return Trials(project, tmp_path / "scratch")


def test_a_commit_is_delivered_onto_its_base_and_rolled_back(trials: Trials) -> None:
    """The base is where a branch left main; the repository stays as it is."""
    project = trials.project
    base = project.git("rev-parse", "HEAD")
    project.git("update-ref", "refs/remotes/origin/main", base)
    project.commit()
    commit = project.commit()
    (project.folder / project.name / "settings.json").write_text("{broken")
    before = [project.git(*c) for c in (("status", "--porcelain"), ("for-each-ref",))]
    ended = trials.ship("--bake", "0.1s")
    assert ended.returncode == 0, ended.stderr
    assert "1 uncommitted change is left out" in ended.stderr
    new, old, short = project.revision(commit), project.revision(base), commit[:7]
    lines = ended.stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [
        "STEP", f"base {base[:7]}", f"build {short}", f"deliver {short}",
        "roll back", f"{short} would deliver",
    ]  # fmt: skip
    assert f"{new} 100 %" in lines[3]
    assert f"{old} 100 %" in lines[4]
    for share in (10, 50):
        assert f"{new} {share} %" in ended.stderr, "a real rollout"
    assert "1 of 1 checks passed" in ended.stderr
    assert "does not exist" in str(project.service()), "nothing went to the environment's own"
    assert [project.git(*c) for c in (("status", "--porcelain"), ("for-each-ref",))] == before
    assert not (project.folder / ".shipway").exists()


def test_a_commit_that_fails_its_checks_would_not_deliver(trials: Trials, tmp_path: Path) -> None:
    """In a workflow, the trial's commands write no run page, output or annotation of their own."""
    trials.project.commit(health="broken")
    output, page = tmp_path / "output", tmp_path / "summary"
    ended = trials.ship(
        GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(output), GITHUB_STEP_SUMMARY=str(page)
    )
    assert ended.returncode == 1
    assert ended.stdout.rstrip().endswith("would not deliver")
    assert "FAILED: " in ended.stdout
    assert "did not pass its smoke checks" in ended.stderr
    assert ended.stderr.count('"status": "broken"') == 1, "the evidence is shown, once"
    assert "fix it and commit, then: ./ship trial" in ended.stderr
    assert "passed<<" in output.read_text()
    assert "revision<<" not in output.read_text()
    assert page.read_text().count("### ") == 1
    assert ended.stderr.count("::error ") == 1


def test_a_container_that_does_not_start_would_not_deliver(trials: Trials) -> None:
    trials.project.commit()
    trials.project.commit(start="exit")
    ended = trials.ship("--onto", "HEAD~2")
    assert ended.returncode == 1
    assert f"base {trials.project.git('rev-parse', 'HEAD~2')[:7]}" in ended.stdout
    assert "did not start: HealthCheckContainerError" in ended.stderr
    assert "  | no database" in ended.stderr


def test_an_image_that_cannot_be_built_would_not_deliver(trials: Trials) -> None:
    project = trials.project
    (project.folder / project.name / "Dockerfile").unlink()
    project.commit()
    ended = trials.ship()
    assert ended.returncode == 2
    assert "Dockerfile: no such file in commit" in ended.stderr


@pytest.mark.parametrize("broken", [{"health": "broken"}, {"start": "exit"}])
def test_a_commit_may_fix_a_broken_base(trials: Trials, broken: dict[str, Any]) -> None:
    trials.project.commit(**broken)
    trials.project.commit(health="ok", start="listen")
    ended = trials.ship("--format", "json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["passed"]
    assert [row["passed"] for row in told["steps"]] == [False, True, True, True]
    assert "cannot be delivered: " in told["steps"][0]["result"]
    assert "left out: no commit was delivered before it" in told["steps"][3]["result"]
    assert "is tried alone" in ended.stderr


def test_a_new_service_has_no_base(trials: Trials) -> None:
    """The base does not know the service yet."""
    project = trials.project
    project.git("mv", f"pipelines/{project.name}", "pipelines/other")
    project.git("mv", project.name, "other")
    for file in ("service.yaml",):
        path = project.folder / "pipelines" / "other" / file
        path.write_text(path.read_text().replace(project.name, "other"))
    project.git("commit", "--quiet", "--all", "--message", "another service")
    steps = trials.rows()
    assert "cannot be delivered: no service 'other'" in steps[0][1]
    assert steps[2][1].endswith(" 100 %")


def test_the_first_commit_is_tried_alone(trials: Trials) -> None:
    ended = trials.ship()
    assert ended.returncode == 0, ended.stderr
    assert "no commit before" in ended.stderr
    assert "base" not in ended.stdout


def test_several_services_are_tried_together(trials: Trials) -> None:
    """Those that the commit touches, and what they call; a failure stops those that call it."""
    project = trials.project
    for name in ("caller", "other"):
        for folder in ("pipelines/", ""):
            source = project.folder / f"{folder}{project.name}"
            shutil.copytree(source, project.folder / f"{folder}{name}")
        manifest = project.folder / f"pipelines/{name}/service.yaml"
        manifest.write_text(manifest.read_text().replace(project.name, name))
    relations = project.folder / "pipelines/services.yaml"
    relations.write_text(f"calls: {{caller: [{project.name}]}}\n")
    project.git("add", "--all")
    base = project.commit()[:7]
    (project.folder / "other/notes").write_text("a change")
    broken = project.folder / "caller/settings.json"
    broken.write_text(json.dumps({**json.loads(broken.read_text()), "health": "broken"}))
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "touch two")
    short = project.git("rev-parse", "HEAD")[:7]
    ended = trials.ship("--format", "json")
    assert ended.returncode == 1
    assert {row["step"]: row["passed"] for row in json.loads(ended.stdout)["steps"]} == {
        f"base other {base}": True,
        f"base {project.name} {base}": True,
        f"base caller {base}": True,
        f"build other {short}": True,
        f"deliver other {short}": True,
        f"build caller {short}": True,
        f"deliver caller {short}": False,
        "roll back other": True,
    }
    assert "no service 'nobody'" in trials.ship("other", "nobody").stderr
    (project.folder / "README.md").write_text("Ours.")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "touch none")
    assert "touches no service: nothing to try" in trials.ship().stdout


@pytest.mark.parametrize("onto", ["HEAD", "nowhere"])
def test_an_onto_that_is_not_a_commit_before_it(trials: Trials, onto: str) -> None:
    ended = trials.ship("--onto", onto)
    assert ended.returncode == 2
    assert f"--onto {onto}: " in ended.stderr


def test_a_commit_of_a_shallow_clone_is_tried_alone(trials: Trials, tmp_path: Path) -> None:
    project = trials.project
    project.commit()
    clone = tmp_path / "shallow"
    source = project.folder.as_uri()
    project.git("clone", "--quiet", "--depth", "1", source, str(clone))
    project.folder = clone
    assert [step.split()[0] for step, _ in trials.rows()] == ["build", "deliver", "roll"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", ["start ", "base ", "deploy ", "deliver "])
def test_interrupted_it_leaves_nothing(trials: Trials, number: int, at: str) -> None:
    trials.project.commit()
    words = ("trial", "--builder", "cloud-build", "--bake", "50s")
    process = trials.project.start(*words, TMPDIR=str(trials.scratch))
    assert process.stderr
    while at not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "./ship status" not in errors, "nothing of it is in force anywhere"
    assert trials.left() == []


@needs_docker
@pytest.mark.xdist_group("docker-runtime")
def test_with_docker_it_runs_the_container_itself(trials: Trials) -> None:
    trials.project.commit()
    before = _docker()
    ended = trials.ship("--builder", "docker")
    assert ended.returncode == 0, ended.stderr
    assert "docker runtime" in ended.stderr
    assert "[internal] load build definition" in ended.stderr
    assert not {image for image in _docker() - before if trials.project.name in image}


def _docker() -> set[str]:
    """Return the engine's containers and images, by name."""
    found: set[str] = set()
    for what in (["ps", "--all", "--format", "{{.Image}}"],
                 ["image", "ls", "--format", "{{.Repository}}@{{.ID}}"]):  # fmt: skip
        found |= set(subprocess.check_output(["docker", *what], text=True, timeout=60).split())
    return found
