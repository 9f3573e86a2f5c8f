"""A rollout decides by what users are answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests

from scripts.command import run_page
from scripts.command.record import Record
from tests.emulator.cloud_run_help import eventually
from tests.scripts.conftest import Project
from tests.users import asking

WATCH = """
rollout:
  steps: [50, 100]
  bake: 1.5s
  watch:
    at-least: 20
    warm-up: 0s
    delay: 0.5s
    patience: {patience}
    unclear: {unclear}
    after: {after}
    source: {source}
"""
BREAKS = """
import itertools
numbers = itertools.count()
broken = []


def respond(path):
    if path == "/break":
        broken.append(path)
    if path == "/health" or not broken:
        return health()
    return (500 if next(numbers) % 2 else 200), body()
"""
FAILS = """
import itertools
numbers = itertools.count()


def respond(path):
    if path == "/health":
        return health()
    return (500 if next(numbers) % 3 == 0 else 200), body()
"""


def watched(
    project: Project, *, unclear: str = "wait", patience: str = "20s", after: str = "0s",
    source: str = "metrics",
) -> None:  # fmt: skip
    file = project.pipeline / "local.yaml"
    before = file.read_text().partition("rollout:")[0]
    rules = WATCH.format(unclear=unclear, patience=patience, after=after, source=source)
    file.write_text(before + rules.lstrip())


@pytest.fixture
def stable(project: Project) -> str:
    """Deliver a first, good revision; return its name."""
    watched(project)
    commit = project.commit()
    project.done("deliver")
    return project.revision(commit)


@contextmanager
def users(project: Project) -> Iterator[None]:
    """Send requests until the end, from two users."""
    with asking(project.service()["status"]["url"], pause=0.03):
        yield


@contextmanager
def refused(project: Project, path: str) -> Iterator[None]:
    """Let the local Cloud Run refuse what is asked of a path."""
    fault = {"name": "status", "path": path, "code": 403}
    project.cloud_run.local("POST", "faults", fault)
    try:
        yield
    finally:
        project.cloud_run.local("DELETE", "faults/status")


def test_a_release_that_fails_users_is_rolled_back_although_its_checks_pass(
    project: Project, stable: str
) -> None:
    project.serve_with(FAILS)
    bad = project.revision(project.commit())
    page = project.folder.parent / "page.md"
    with users(project):
        ended = project.ship("deliver", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))
    assert ended.returncode == 1, ended.stderr
    assert "**Users' answers:** worse" in page.read_text()
    assert "| REVISION | ANSWERS | 5XX |" in page.read_text()
    assert "console.cloud.google.com" not in page.read_text(), "another address stands in"
    assert f"{bad} answers its users worse than stable" in ended.stderr
    assert "ANSWERS" in ended.stderr
    assert "P99" in ended.stderr
    assert project.shares() == {stable: 100}


def test_a_good_release_goes_to_all_users(project: Project, stable: str) -> None:
    good = project.revision(project.commit())
    with users(project):
        ended = project.ship("deliver", "--format", "json")
    assert ended.returncode == 0, ended.stderr
    assert "evidence" in ended.stderr
    assert project.shares() == {good: 100}
    found = json.loads(ended.stdout)["watch"]
    assert (found["verdict"], found["bar"], found["missing"]) == ("no worse", 100, 0)
    [(_, region)] = found["regions"].items()
    assert region["evidence"] == found["evidence"] < 10
    for which, revision in (("candidate", good), ("stable", stable)):
        answered = region[which]
        assert answered["revision"] == revision
        assert answered["answers"] >= 20
        assert answered["errors"] == 0 <= answered["slow"]
        assert 0 < answered["p50"] <= answered["p99"]


def test_too_few_answers_are_neither_health_nor_a_failure(project: Project, stable: str) -> None:
    watched(project, unclear="stop")
    quiet = project.revision(project.commit())
    ended = project.ship("deliver")
    assert ended.returncode == 1, ended.stderr
    assert f"unclear whether {quiet} answers users worse" in ended.stderr
    assert "0 answers, 20 are missing" in ended.stderr
    assert project.shares() == {quiet: 50, stable: 50}
    assert "unclear: 0 answers, 20 are missing" in project.ship("status").stdout
    [region] = json.loads(project.ship("status", "--format", "json").stdout)["regions"]
    assert region["watch"]["verdict"] == "unclear"
    promoted = project.ship("promote")
    assert promoted.returncode == 0, promoted.stderr
    assert "unclear: 0 answers" in promoted.stderr


def lose_the_watcher(project: Project) -> None:
    """Let the time be over at which the step in progress should have ended."""
    service = project.service()
    annotations = service["metadata"]["annotations"]
    left = json.loads(annotations["shipway/in-progress"])
    annotations["shipway/in-progress"] = json.dumps({**left, "until": "2026-01-01T00:00:00Z"})
    project.put(service)


def breaks_at_last(project: Project, verb: str, late: str) -> str:
    """Let a release break once it has all traffic; return what the verb that watches it printed.

    It rolls the release back, and sees that users' answers recover.
    """
    with users(project), project.start(verb) as process:
        eventually(lambda: project.shares() == {late: 100})
        requests.get(f"{project.service()['status']['url']}/break", timeout=10)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert f"{late} answers its users worse than stable" in said
    assert "users' answers are as before again" in said
    return str(said)


def test_the_request_log_alone_decides_the_same(project: Project, stable: str) -> None:
    """Also for one who takes the rollout up, and after the last step."""
    watched(project, source="logs", unclear="stop")
    project.serve_with(BREAKS)
    late = project.revision(project.commit())
    with refused(project, "/v3/*"):
        quiet = project.ship("deliver")
        assert quiet.returncode == 1, quiet.stderr
        assert "0 answers, 20 are missing" in quiet.stderr, "smoke checks do not count"
        watched(project, source="logs", after="60s")
        said = breaks_at_last(project, "rollout", late)
    assert "not seen" not in said
    assert project.shares() == {stable: 100}


def test_two_schedules_take_up_a_rollout_that_no_one_watches(project: Project, stable: str) -> None:
    take_up = ("rollout", "--if-left", "--all", "--yes")
    nothing = project.ship(*take_up)
    assert (nothing.returncode, project.shares()) == (0, {stable: 100})
    assert "no rollout has lost its watcher; nothing changed" in nothing.stderr
    watched(project, unclear="stop")
    left = project.revision(project.commit())
    assert project.ship("deliver").returncode == 1
    assert project.ship(*take_up).returncode == 0
    assert project.shares() == {left: 50, stable: 50}, "its watcher may still run"
    lose_the_watcher(project)
    assert project.ship("hold").returncode == 0
    assert "not continued, because of the hold" in project.ship(*take_up).stderr
    assert project.ship("resume").returncode == 0
    watched(project)
    with users(project), project.start(*take_up) as one, project.start(*take_up) as other:
        eventually(lambda: "NOT WATCHED" not in project.ship("status").stdout)
        for process in (one, other):
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said
    assert project.shares() == {left: 100}
    assert "IN PROGRESS" not in project.ship("status").stdout


def test_a_step_that_no_one_watches_any_more_is_said(project: Project, stable: str) -> None:
    watched(project, unclear="stop")
    revision = project.revision(project.commit())
    assert project.ship("deliver").returncode == 1
    assert "NOT WATCHED" not in project.ship("status").stdout
    lose_the_watcher(project)
    shown = project.ship("status").stdout
    assert f"NOT WATCHED: no one watches the rollout of {revision}" in shown
    assert f"./ship rollout {project.name} takes it up" in shown


def test_numbers_that_cannot_be_read_are_said_and_unclear(project: Project, stable: str) -> None:
    watched(project, unclear="stop")
    project.commit()
    with refused(project, "/v3/*"):
        ended = project.ship("deliver")
    assert ended.returncode == 1, ended.stderr
    assert "note: users' answers are not seen" in ended.stderr


def test_promote_refuses_a_worse_release_unless_told(project: Project, stable: str) -> None:
    watched(project, unclear="stop")
    project.serve_with(FAILS)
    bad = project.revision(project.commit())
    assert project.ship("deliver").returncode == 1
    with users(project):
        eventually(lambda: "\nworse: " in project.ship("status").stdout)
    refused = project.ship("promote")
    assert refused.returncode == 3, refused.stderr
    assert "--although-worse" in refused.stderr
    assert project.ship("promote", "--although-worse").returncode == 0
    assert project.shares() == {bad: 100}


def test_a_release_that_breaks_when_it_has_all_traffic_is_rolled_back_with_a_hold(
    project: Project, stable: str
) -> None:
    watched(project, after="60s")
    project.serve_with(BREAKS)
    late = project.revision(project.commit())
    said = breaks_at_last(project, "deliver", late)
    assert "promised" in said
    assert project.shares() == {stable: 100}
    assert "ON HOLD" in project.ship("status").stdout


def test_a_rollback_is_said_although_it_cannot_be_watched(project: Project, stable: str) -> None:
    watched(project, unclear="go-on", after="60s")
    project.serve_with(BREAKS.replace('path == "/health" or ', ""))
    project.commit()
    url = project.service()["status"]["url"]
    with refused(project, "/v3/*"), project.start("deliver") as process:
        assert process.stderr
        assert any("has all traffic" in line for line in process.stderr)
        requests.get(f"{url}/break", timeout=10)
        said = process.stderr.read()
    assert process.returncode == 1, said
    assert "rolled back; whether that helped is not known" in said
    assert project.shares() == {stable: 100}


def test_a_release_stays_if_nothing_happens_after_its_last_step(
    project: Project, stable: str
) -> None:
    watched(project, after="2s")
    good = project.revision(project.commit())
    with users(project):
        ended = project.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    assert f"{good} was no worse after it got all traffic" in ended.stderr
    assert project.shares() == {good: 100}


def test_links_name_the_revision_and_the_time() -> None:
    record = Record(verb="status", root=Path(), service="app", project="acme-prod")
    where = ("us-central1", "app-2", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")
    for address in (run_page.logs_url, run_page.metrics_url):
        url = urlsplit(address(record, *where))
        assert url.hostname == "console.cloud.google.com"
        assert parse_qs(url.query)["project"] == ["acme-prod"]
        times = re.findall(r"2026-01-01T0\d:00:00Z", url.path)
        assert times == ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"]
        decoded = unquote(address(record, *where)).replace("\\", "")
        for label in ("location", "service_name", "revision_name"):
            assert re.search(rf'\.labels?\."?{label}"?="(us-central1|app|app-2)"', decoded), label
    record.at_google = False
    assert run_page.logs_url(record, *where) == run_page.metrics_url(record, *where) == ""
