"""What a rollout is compared with is gone in the middle of it: unclear or an error, never worse."""

from __future__ import annotations

import pytest
import requests

from scripts.config.formats import Watch
from scripts.release.watch import Point, see, weigh
from tests.emulator.cloud_run_help import eventually
from tests.scripts.conftest import Project
from tests.scripts.test_watch import BREAKS, users, watched


def point(revision: str, begin: int, *, is_error: bool = False, number: int = 100) -> Point:
    latencies = {(1.0, 2.0): number}
    return Point(
        revision=revision, start=begin, end=begin + 60, is_error=is_error, latencies=latencies
    )


@pytest.mark.parametrize("is_error", [False, True])
def test_answers_do_not_count_while_there_is_nothing_to_compare_them_with(is_error: bool) -> None:
    mine = [point("new", 60 * n, is_error=is_error) for n in range(9)]
    for theirs, missing in (([], 200), ([point("old", 0)], 100), ([point("old", 480)], 100)):
        seen = see([*mine, *theirs], "new", "old", rules=Watch(), since=0, until=600)
        found = weigh({"one": seen}, Watch(latency=None)).verdict
        if theirs and is_error:
            continue  # worse than the one minute that there is
        assert (found.verdict, found.missing) == ("unclear", missing)


def test_a_candidate_whose_numbers_are_gone_is_unclear() -> None:
    seen = see([point("old", 0)], "new", "old", rules=Watch(), since=0, until=600)
    assert weigh({"one": seen}, Watch()).verdict.verdict == "unclear"


def delete_stable(project: Project, stable: str) -> None:
    """Take the traffic and the tag away from a revision, and delete it, as another tool may."""
    service = project.service()
    [candidate] = [
        t for t in service["spec"]["traffic"] if t["revisionName"] != stable and t.get("percent")
    ]
    rest = [t for t in service["spec"]["traffic"] if t["revisionName"] != stable]
    service["spec"]["traffic"] = [t for t in rest if t is not candidate]
    service["spec"]["traffic"].append({**candidate, "percent": 100})
    project.put(service)
    path = f"{project.service_path.rpartition('/services/')[0]}/revisions/{stable}"
    eventually(lambda: requests.delete(path, timeout=10).ok)


def test_stable_is_deleted_in_a_step(project: Project) -> None:
    watched(project, patience="1s")
    stable = project.revision(project.commit())
    project.done("deliver")
    new = project.revision(project.commit())
    with project.start("deliver") as process:
        eventually(lambda: project.shares() == {new: 50, stable: 50})
        delete_stable(project, stable)
        with users(project):
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert f"unclear whether {new} answers users worse than stable: 0 answers, 20 are" in said
    assert "more while stable answered nothing" in said
    assert project.shares() == {new: 100}


def test_stable_is_deleted_after_the_last_step(project: Project) -> None:
    watched(project, after="60s")
    stable = project.revision(project.commit())
    project.done("deliver")
    project.serve_with(BREAKS)
    late = project.revision(project.commit())
    url = project.service()["status"]["url"]
    with users(project), project.start("deliver") as process:
        eventually(lambda: project.shares() == {late: 100})
        delete_stable(project, stable)
        requests.get(f"{url}/break", timeout=10)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert f"{late} answers its users worse than stable" in said
    assert "it could not be rolled back: " in said
    assert f"Revision '{stable}' of service '{project.name}' does not exist" in said
    assert project.shares() == {late: 100}
