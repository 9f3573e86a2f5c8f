"""A late run of an older commit steps aside: nothing changes, without an error."""

from __future__ import annotations

import pytest
import requests

from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests.relay import Relay
from tests.scripts.conftest import Project


class Two:
    """An older commit that was never delivered, and a newer one that serves."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.older = project.commit()
        self.newer = project.commit()
        project.done("deliver")


@pytest.fixture
def two(served: Project) -> Two:
    return Two(served)


def version(project: Project) -> str:
    return str(project.service()["metadata"]["resourceVersion"])


def has_image(project: Project, commit: str) -> bool:
    path = f"shipway-local/services/{project.name}/manifests/{commit}"
    return requests.get(f"{project.cloud_run.url}/v2/{path}", timeout=10).ok


@pytest.mark.parametrize("how", [[], ["--dry-run"]])
def test_an_older_commit_steps_aside(two: Two, how: list[str]) -> None:
    """Nothing is built, nothing is written."""
    project = two.project
    before = version(project)
    ended = project.ship("deliver", "--commit", two.older, *how)
    assert ended.returncode == 0, ended.stderr
    assert (
        f"{two.older[:7]} steps aside: {two.newer[:7]} is newer and serves 100 % in local."
        f" To roll back on purpose: ./ship rollback {project.name}"
    ) in ended.stdout
    assert version(project) == before
    assert not has_image(project, two.older)
    assert project.revision(two.older) not in project.revisions()


def test_a_workflow_gets_the_outcome(two: Two) -> None:
    project = two.project
    output = project.folder / "output"
    done = project.done("deliver", "--commit", two.older, GITHUB_OUTPUT=str(output))
    assert (done["outcome"], done["overtaken"], done["newer"]) == ("overtaken", True, two.newer)
    assert done["url"] == project.service()["status"]["url"]
    assert "overtaken<<" in output.read_text()
    output.unlink()
    done = project.done("deliver", GITHUB_OUTPUT=str(output))
    assert (done["outcome"], done["overtaken"]) == ("delivered", False)
    assert "\ndelivered\n" in output.read_text()


def test_the_printed_command_goes_back_on_purpose(two: Two) -> None:
    """The printed command names that commit's revision, if it has one."""
    project = two.project
    first = project.git("rev-parse", "HEAD~2")
    said = project.ship("deliver", "--commit", first).stdout
    command = said.partition("./ship ")[2].split()
    assert command == ["rollback", project.name, "--to", project.revision(first)]
    project.done(*command)
    assert project.shares() == {project.revision(first): 100}


def test_the_commit_that_serves_can_be_delivered_again(two: Two) -> None:
    """I6."""
    before = version(two.project)
    assert two.project.done("deliver")["outcome"] == "delivered"
    assert version(two.project) == before


def test_a_release_without_traffic_counts(served: Project) -> None:
    older, newer = served.commit(), served.commit()
    served.done("build")
    served.done("deploy")
    before = version(served)
    ended = served.ship("deliver", "--commit", older)
    assert f"{newer[:7]} is newer and is being released in local" in ended.stdout
    assert version(served) == before


def test_after_a_rollback_the_older_commit_may_come(two: Two) -> None:
    """I7: a rolled-back revision blocks no one; its hold does, until someone resumes."""
    project = two.project
    project.done("rollback")
    held = project.ship("deliver", "--commit", two.older)
    assert held.returncode == 3
    assert "on hold" in held.stderr
    project.done("resume")
    assert project.done("deliver", "--commit", two.older)["outcome"] == "delivered"
    assert project.shares() == {project.revision(two.older): 100}


def test_a_newer_commit_that_failed_blocks_no_one(served: Project) -> None:
    older = served.commit()
    for broken in ({"health": "broken"}, {"health": "ok", "start": "exit"}):
        served.commit(**broken)
        assert served.ship("deliver").returncode == 1
    assert served.done("deliver", "--commit", older)["outcome"] == "delivered"


def test_a_branch_beside_it_is_neither_older_nor_newer(two: Two) -> None:
    project = two.project
    project.git("checkout", "--quiet", "-b", "beside", two.older)
    beside = project.commit()
    project.done("deliver")
    assert project.shares() == {project.revision(beside): 100}


def test_a_clone_without_the_live_commit_continues_with_a_note(two: Two) -> None:
    """A shallow clone, or a rewritten history."""
    project = two.project
    project.git("reset", "--quiet", "--hard", two.older)
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "--quiet", "--prune=now")
    ended = project.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count(f"note: {two.newer[:7]}, which serves, is not in this clone") == 1
    assert project.shares() == {project.revision(two.older): 100}


def test_one_region_is_enough(two: Two) -> None:
    """All regions count: the newer commit serves in the second one alone."""
    project = two.project
    path = project.pipeline / "local.yaml"
    original = path.read_text()
    project.git("checkout", "--quiet", "-b", "wider", two.older)
    path.write_text(original.replace("[us-central1]", "[europe-west1, us-central1]"))
    older = project.commit()
    project.commit()
    path.write_text(original)
    newer = project.commit()
    project.done("deliver")
    done = project.done("deliver", "--commit", older)
    assert (done["outcome"], done["newer"]) == ("overtaken", newer)
    assert project.shares() == {project.revision(newer): 100}


def test_overtaken_while_a_step_is_watched(served: Project) -> None:
    """It steps aside in the middle, and leaves the newer commit's traffic alone."""
    older = served.commit()
    process = served.start("deliver", "--bake", "20s")
    assert process.stderr
    while "watched for" not in process.stderr.readline():
        assert process.poll() is None
    newer = served.commit()
    served.done("deliver")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"{older[:7]} steps aside: {newer[:7]} is newer and serves" in output
    last = output.splitlines()[-1]
    assert last.startswith("written: "), output
    assert f"image {served.name}:{older[:7]}" in last
    assert last.endswith("; nothing else changed")
    assert served.shares() == {served.revision(newer): 100}


def test_overtaken_between_a_check_and_the_next_step(served: Project) -> None:
    """I3, I4: the newer release took away the older one's tag, which is not an error."""
    older, newer = served.commit(), served.commit()
    overtook: list[str] = []

    def overtake(method: str, path: str) -> None:
        if method == "PUT" and not overtook and served.shares().get(served.revision(older)) == 10:
            overtook.append(path)
            served.done("deliver")

    with Relay(served.cloud_run.url, refuse=overtake) as relay:
        ended = served.ship("deliver", "--commit", older, **{ENDPOINT_VARIABLE: relay.url})
    assert overtook
    assert ended.returncode == 0, ended.stderr
    assert f"{older[:7]} steps aside: {newer[:7]} is newer and serves" in ended.stdout
    assert served.shares() == {served.revision(newer): 100}
