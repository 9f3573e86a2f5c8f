"""The commands of a release manager: promote, rollback, hold, resume, status, history."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import requests

from tests.conftest import ROOT
from tests.scripts.conftest import Lend, Project, deliver_one


def deliver_two(project: Project) -> None:
    deliver_one(project)
    project.commit()
    project.done("deliver")


@pytest.fixture
def second(lend: Lend) -> Iterator[Project]:
    """Yield a project with two delivered commits."""
    with lend(deliver_two) as project:
        yield project


def names(project: Project) -> list[str]:
    """Return the revisions of the commits, newest first."""
    return [project.revision(sha) for sha in project.git("log", "--format=%H").splitlines()]


def test_promote_goes_step_by_step(candidate: Project) -> None:
    new, old = names(candidate)
    for percent in (10, 50):
        done = candidate.done("promote")
        assert done["regions"][0]["after"] == {old: 100 - percent, new: percent}
        assert candidate.shares() == {old: 100 - percent, new: percent}
    assert candidate.done("promote")["regions"][0]["after"] == {new: 100}
    assert candidate.shares() == {new: 100}


def test_promote_to_a_percentage_and_all_the_way(candidate: Project) -> None:
    new, old = names(candidate)
    ended = candidate.ship("promote", "--to", "35")
    assert ended.returncode == 0
    assert "BEFORE" in ended.stdout
    assert candidate.shares() == {old: 65, new: 35}
    candidate.done("promote", "--all")
    assert candidate.shares() == {new: 100}


def test_promote_never_takes_traffic_away(candidate: Project) -> None:
    candidate.done("promote", "--to", "35")
    ended = candidate.ship("promote", "--to", "5")
    assert ended.returncode == 2
    assert "promote never takes traffic away" in ended.stderr


def test_promote_checks_the_revision_first(served: Project) -> None:
    """I4."""
    before = served.shares()
    served.commit(health="broken")
    served.done("build")
    served.done("deploy")
    ended = served.ship("promote")
    assert ended.returncode == 1
    assert "did not pass its smoke checks" in ended.stderr
    assert served.shares() == before


def test_nothing_to_promote(served: Project) -> None:
    ended = served.ship("promote")
    assert ended.returncode == 3
    assert "nothing to promote" in ended.stderr


def test_rollback_finds_the_last_known_good_revision_and_holds(second: Project) -> None:
    """I7: the hold stops every later release until resume."""
    new, old = names(second)
    ended = second.ship("rollback", "--reason", "customers see errors")
    assert ended.returncode == 0, ended.stderr
    assert second.shares() == {old: 100}
    hold = f"rollback-{new.removeprefix(second.name + '-')}"
    assert hold in ended.stdout

    third = second.commit()
    for verb in (["deliver"], ["promote", "--all"], ["rollout"]):
        assert second.ship(*verb).returncode == 3, verb
        assert second.shares() == {old: 100}
    ended = second.ship("deliver")
    assert ended.returncode == 3
    assert hold in ended.stderr
    assert "customers see errors" in ended.stderr
    assert f"./ship resume {second.name}" in ended.stderr
    assert second.revision(third) not in second.revisions(), "refused before anything was sent"

    second.done("resume")
    second.done("deliver")
    assert second.shares() == {second.revision(third): 100}


def test_a_hold_is_overridden_by_its_name_only(second: Project) -> None:
    """I7."""
    second.done("hold", "--name", "incident-42", "--reason", "paying customers")
    commit = second.commit()
    assert second.ship("deliver", "--override", "incident-41").returncode == 3
    assert second.ship("deliver", "--override", "incident-42").returncode == 0
    assert second.shares() == {second.revision(commit): 100}
    assert second.done("status")["regions"][0]["hold"]["name"] == "incident-42"


def test_a_second_hold_brings_its_reason(served: Project) -> None:
    served.done("hold", "--reason", "looking")
    ended = served.ship("hold", "--reason", "it was the database")
    assert "on hold: hold " in ended.stdout
    assert "it was the database" in ended.stdout
    [region] = served.done("status")["regions"]
    assert region["hold"]["why"] == "it was the database"
    again = served.ship("hold")
    assert "already on hold; nothing changed" in again.stdout
    assert "it was the database" in again.stdout


def test_promote_under_a_hold_is_refused_unless_it_names_the_hold(candidate: Project) -> None:
    """I7."""
    new, old = names(candidate)
    candidate.done("hold", "--name", "incident-42", "--reason", "paying customers")
    before = candidate.service()
    for words in ((), ("--to", "35"), ("--all",), ("--override", "another")):
        ended = candidate.ship("promote", *words)
        assert ended.returncode == 3
        assert "is on hold: incident-42" in ended.stderr
        assert f"./ship resume {candidate.name}" in ended.stderr
    assert candidate.service() == before
    candidate.done("promote", "--override", "incident-42")
    assert candidate.shares() == {old: 90, new: 10}
    assert candidate.done("status")["regions"][0]["hold"]["name"] == "incident-42"


def test_a_hold_set_in_the_middle_stops_the_next_step(candidate: Project) -> None:
    """I7: also for a rollout that is already in progress."""
    new, old = names(candidate)
    process = _rolling_out(candidate, "2s")
    candidate.done("hold", "--name", "look")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "is on hold: look" in errors
    assert f"live now: {old} 90 %, {new} 10 %" in errors
    assert candidate.shares() == {old: 90, new: 10}


def test_an_interrupted_rollout_leaves_the_step_in_force_and_goes_on_later(
    candidate: Project,
) -> None:
    """I3, I6."""
    new, old = names(candidate)
    process = _rolling_out(candidate, "30s")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    written = f"interrupted; written: service {candidate.name} in us-central1"
    assert f"{written}; to see what is live: ./ship status {candidate.name}\n" in errors
    assert candidate.shares() == {old: 90, new: 10}
    shown = candidate.done("status")["regions"][0]
    left = shown["in_progress"]
    assert (left["verb"], left["from"], left["to"], left["by"]) == ("rollout", 0, 10, "tester")
    assert shown["next"].startswith(f"./ship rollout {candidate.name}")
    assert f"takes up the rollout of {new}" in candidate.ship("rollout").stderr
    assert candidate.done("status")["regions"][0]["in_progress"] is None
    assert candidate.shares() == {new: 100}


def test_a_rollback_stops_the_rollout_in_progress(candidate: Project) -> None:
    _, old = names(candidate)
    process = _rolling_out(candidate, "2s")
    candidate.done("rollback", "--no-hold")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is no longer the candidate" in errors
    assert candidate.shares() == {old: 100}


def _rolling_out(project: Project, bake: str) -> subprocess.Popen[str]:
    """Start a rollout, and yield it while it watches its first step."""
    process = project.start("rollout", "--bake", bake)
    assert process.stderr
    while "watched for" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_a_second_rollback_changes_nothing_and_a_named_one_goes_further(second: Project) -> None:
    second.commit()
    second.done("deliver")
    newest, middle, oldest = names(second)
    for _ in range(2):
        second.done("rollback")
        assert second.shares() == {middle: 100}, "I6: once is enough"
    second.done("rollback", "--to", oldest)
    assert second.shares() == {oldest: 100}
    assert second.done("status")["regions"][0]["known_good"] == [oldest]
    assert newest not in second.shares()


def test_rollback_in_the_middle_of_a_rollout_goes_to_stable(candidate: Project) -> None:
    _, old = names(candidate)
    candidate.done("promote")
    candidate.done("rollback")
    assert candidate.shares() == {old: 100}


def test_rollback_to_a_named_revision(second: Project) -> None:
    _, old = names(second)
    second.done("rollback", "--to", old)
    assert second.shares() == {old: 100}


def test_rollback_to_a_revision_that_never_served_is_checked_first(second: Project) -> None:
    """I4: a revision that is not known to be good must pass its checks; here it does not."""
    before = second.shares()
    bad = second.commit(health="broken")
    second.done("build")
    second.done("deploy")
    ended = second.ship("rollback", "--to", second.revision(bad))
    assert ended.returncode == 1
    assert "did not pass its smoke checks" in ended.stderr
    assert second.shares() == before


def test_rollback_again_changes_nothing(second: Project) -> None:
    """I6."""
    _, old = names(second)
    second.done("rollback", "--to", old)
    version = second.service()["metadata"]["resourceVersion"]
    second.done("rollback", "--to", old)
    assert second.service()["metadata"]["resourceVersion"] == version


@pytest.mark.parametrize("verb", [["rollback"], ["hold"], ["promote"]])
def test_a_dry_run_only_reads(candidate: Project, verb: list[str]) -> None:
    """I10."""
    candidate.done("promote")
    before = candidate.service()
    ended = candidate.ship(*verb, "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert "nothing was written" in ended.stdout
    assert candidate.service() == before


def test_status_answers_at_one_look(candidate: Project) -> None:
    new, old = names(candidate)
    candidate.done("promote")
    status = candidate.done("status")["regions"][0]
    rows = {row["revision"]: row for row in status["revisions"]}
    assert rows[old]["percent"] == 90
    assert rows[old]["state"] == "serving"
    assert rows[new]["percent"] == 10
    assert rows[new]["state"] == "candidate"
    assert rows[new]["commit"] == candidate.git("rev-parse", "HEAD")
    assert "@sha256:" in rows[new]["image"]
    assert status["url"].startswith("http")
    assert status["next"].startswith(f"./ship promote {candidate.name}")
    text = candidate.ship("status").stdout
    for word in (new, old, "90 %", "10 %", "candidate", "s ago", "next: ./ship promote"):
        assert word in text


def test_status_of_what_is_not_there_says_how_to_begin(project: Project) -> None:
    ended = project.ship("status")
    assert ended.returncode == 0
    assert f"./ship deliver {project.name}" in ended.stdout


def test_status_shows_a_hold_and_what_to_type(second: Project) -> None:
    second.done("rollback", "--reason", "errors")
    text = second.ship("status").stdout
    assert "ON HOLD: rollback-" in text
    assert f"next: ./ship resume {second.name}" in text


def test_status_watch_follows(candidate: Project) -> None:
    with candidate.start("status", "--watch") as process:
        killing = threading.Timer(60, process.kill)
        killing.start()

        def see(text: str) -> None:
            assert process.stdout
            if not any(text in line for line in process.stdout):
                raise AssertionError(f"it ended without {text!r}: {process.communicate()}")

        try:
            see("next: ./ship promote")
            candidate.done("promote", "--to", "35")
            see("35 %")
            process.send_signal(signal.SIGINT)
            process.communicate()
        finally:
            killing.cancel()
            process.kill()
    assert process.returncode == 0


def test_history_shows_who_did_what_and_why(second: Project) -> None:
    second.done("rollback", "--reason", "customers see errors")
    changes = second.done("history", "--changes")["changes"]
    assert changes[0]["verb"] == "rollback"
    assert changes[0]["by"] == "tester"
    assert changes[0]["why"] == "customers see errors"
    rows = second.done("history")["revisions"]
    assert [row["revision"] for row in rows] == names(second)
    assert rows[1]["percent"] == 100
    assert "rollback 100 % by tester" in second.ship("history").stdout


def test_results_are_handed_on_in_github_actions(second: Project) -> None:
    output, summary = second.folder / "output", second.folder / "summary"
    second.ship("deliver", GITHUB_OUTPUT=str(output), GITHUB_STEP_SUMMARY=str(summary))
    assert "revision<<" in output.read_text()
    assert names(second)[0] in output.read_text()
    assert "| Region |" in summary.read_text()


def test_a_deployment_at_github_has_the_url_of_its_revision(candidate: Project) -> None:
    """Of the one that is released; after a rollback, of the one that serves."""
    new, old = names(candidate)
    said = candidate.folder / "output"
    for verb, revision in (("promote", new), ("rollback", old), ("resume", old)):
        said.unlink(missing_ok=True)
        candidate.done(verb, GITHUB_OUTPUT=str(said))
        url = said.read_text().partition("deployment_url<<")[2].splitlines()[1]
        assert requests.get(url, timeout=20).json()["revision"] == revision, verb


def test_the_json_document_is_the_only_thing_on_standard_output(second: Project) -> None:
    for verb in ("status", "history", "deliver", "rollback"):
        ended = second.ship(verb, "--format", "json")
        json.loads(ended.stdout)


def test_a_commit_that_does_not_start_ends_no_other_rollout(candidate: Project) -> None:
    new, _ = names(candidate)
    process = _rolling_out(candidate, "2s")
    candidate.commit(start="exit")
    assert candidate.ship("deliver").returncode == 1
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert candidate.shares() == {new: 100}


def test_a_failure_during_a_step_is_noticed_before_the_bake_ends(served: Project) -> None:
    """I5: long before the bake time is over."""
    before = served.shares()
    served.serve_with(
        "from time import time\nuntil = time() + 2\n"
        "def health():\n    return (500 if time() > until else 200), body()"
    )
    served.commit()
    ended = served.ship("deliver", "--bake", "50s")
    assert ended.returncode == 1, ended.stderr
    assert "moved back" in ended.stderr
    assert f"traffic was moved back: {next(iter(before))} 100 %" in ended.stderr
    assert served.shares() == before


def test_the_history_tells_of_an_override(second: Project) -> None:
    second.done("hold", "--name", "incident-42")
    second.commit()
    second.done("deliver", "--override", "incident-42")
    changes = second.done("history", "--changes")["changes"]
    assert "overrides incident-42" in {c.get("why", "").partition(".")[0] for c in changes}


def test_an_unreadable_standard_output_does_not_make_a_change_a_failure(second: Project) -> None:
    _, old = names(second)
    ended = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" "{ROOT}/scripts" rollback >&-'],
        cwd=second.folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert second.shares() == {old: 100}
