"""How a verb ends: its exit code and last line are true, and the same command again goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import rollout
from scripts.cloud import cloud_run
from scripts.cloud.google import Google
from scripts.command import failure
from scripts.command.call import Call
from scripts.command.record import Live, Record
from scripts.config import pipelines
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.errors import Failed, Refused, ShipError, Unknown, UsageError
from scripts.ledger import Write
from tests.relay import Relay
from tests.scripts.conftest import Clock, Project

BEFORE = {"r": {"app-1": 100}}
AFTER = {"r": {"app-1": 90, "app-2": 10}}
STATUS = "./ship status app"


def record(
    *outcomes: str,
    now: dict[str, dict[str, int]] | None = None,
    wanted: dict[str, dict[str, int]] | None = None,
    seen: bool = False,
) -> Record:
    """Return the record of a verb that writes, and that read BEFORE first."""
    made = Record(verb="promote", root=Path("/"), where="app")
    made.writes = [Write(what="service app", request="PUT", outcome=o) for o in outcomes]  # type: ignore[arg-type]  # a literal
    made.saw("r", BEFORE["r"])
    if seen:
        made.saw("r", AFTER["r"])

    def look() -> dict[str, Live]:
        if now is None:
            raise Failed("no answer")
        return {r: Live(served=one, wanted=(wanted or now)[r]) for r, one in now.items()}

    made.look = look
    return made


@pytest.mark.parametrize("error", [UsageError("u"), Refused("r")])
def test_codes_2_and_3_only_where_nothing_was_written(error: ShipError) -> None:
    for outcomes in ((), ("refused",)):
        assert failure.complete(error, record(*outcomes, now=BEFORE)) is error
    for outcome in ("done", "unknown"):
        ended = failure.complete(error, record(outcome, now=BEFORE))
        assert ended.exit_code == 1
        assert "traffic is unchanged: app-1 100 %" in ended.message
        assert ("unknown whether written" if outcome == "unknown" else "written") in ended.message


def test_unchanged_only_after_reading_that_it_is() -> None:
    for now, seen, says in (
        (BEFORE, False, "traffic is unchanged: app-1 100 %"),
        (BEFORE, True, "traffic was moved back: app-1 100 %"),
        (AFTER, False, "live now: app-1 90 %, app-2 10 %"),
        ({"r": {}}, False, "nothing serves any more"),
        (None, False, "nothing was written"),
    ):
        ended = failure.complete(Failed("why"), record(now=now, seen=seen))
        assert (ended.exit_code, ended.message) == (1, f"why; {says}")


def test_traffic_that_is_about_to_move_is_not_called_unchanged() -> None:
    """Cloud Run has the write, and the status that is read is still that of before."""
    ended = failure.complete(Failed("why"), record("done", now=BEFORE, wanted=AFTER))
    says = "live now: app-1 100 %; Cloud Run has not taken yet: app-1 90 %, app-2 10 %"
    assert ended.message == f"why; {says}"


def test_what_cannot_be_read_is_called_unknown() -> None:
    ended = failure.complete(Unknown("why"), record("done", "unknown"))
    assert ended.kind == "unknown"
    assert "unchanged" not in ended.message
    assert "written: service app; unknown whether written: service app" in ended.message
    assert ended.message.endswith(f"to find out: {STATUS}")
    document = failure.document(ended, record("done", "unknown"))
    assert (document["written"], document["unknown"]) == (["service app"], ["service app"])


def test_an_interrupt_says_what_was_written() -> None:
    assert failure.interrupted(record()).message == "interrupted; nothing was written"
    said = failure.interrupted(record("unknown")).message
    assert (
        said == f"interrupted; unknown whether written: service app; to see what is live: {STATUS}"
    )


def refusing(project: Project, number: int) -> Relay:
    """Return a relay that refuses the PUT of that number, the first one being 1."""
    puts = 0

    def refuse(method: str, _path: str) -> tuple[int, str] | None:
        nonlocal puts
        puts += method == "PUT"
        return (403, "PERMISSION_DENIED") if method == "PUT" and puts == number else None

    return Relay(project.cloud_run.url, refuse=refuse)


def test_a_promotion_that_was_not_seen_to_end_is_taken_up_once(candidate: Project) -> None:
    """The write that ends it is lost: the next promote checks that step and takes no other."""
    with refusing(candidate, 2) as relay:
        ended = candidate.ship("promote", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 0, ended.stderr
    assert "still shows as in progress" in ended.stderr
    assert sorted(candidate.shares().values()) == [10, 90]
    assert "IN PROGRESS: promote of" in candidate.ship("status").stdout
    ended = candidate.ship("promote")
    assert "took up the promote of" in ended.stdout
    assert sorted(candidate.shares().values()) == [10, 90]
    candidate.done("promote")
    assert candidate.shares() == dict.fromkeys(candidate.shares(), 50)


def test_a_rollout_that_failed_is_tried_again(candidate: Project) -> None:
    """The withdrawal names what failed, and the same command tries that again."""
    new, old = (candidate.revision(sha) for sha in candidate.git("log", "--format=%H").split())
    with refusing(candidate, 2) as relay:
        ended = candidate.ship("rollout", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 1
    assert f"traffic was moved back: {old} 100 %" in ended.stderr
    status = candidate.done("status")["regions"][0]
    assert status["failed"]["revision"] == new
    assert "rollout failed" in candidate.ship("status").stdout
    refused = candidate.ship("promote")
    assert refused.returncode == 3
    assert "the last release failed" in refused.stderr
    planned = candidate.done("rollout", "--dry-run")["regions"][0]
    done = candidate.done("rollout")["regions"][0]
    assert planned["after"] == done["after"] == {new: 100}
    assert candidate.done("status")["regions"][0]["failed"] is None


def test_a_delivery_whose_first_check_fails_is_not_forgotten(served: Project) -> None:
    """`rollout` afterwards tries that release again, instead of saying that all is done."""
    before = served.shares()
    bad = served.revision(served.commit(health="bad"))
    assert served.ship("deliver").returncode == 1
    again = served.ship("rollout")
    assert again.returncode == 1
    assert f"{bad} did not pass its smoke checks" in again.stderr
    assert f"tries the release that failed again: {bad}" in again.stderr
    assert f"FAILED: the last release, of {bad}" in served.ship("status").stdout
    assert served.shares() == before
    served.commit(health="ok")
    served.done("deliver")
    assert served.done("status")["regions"][0]["failed"] is None


def test_a_rollout_after_a_deploy_that_did_not_start(served: Project) -> None:
    """It is the last release, although an earlier one failed, too."""
    served.commit(health="bad")
    assert served.ship("deliver").returncode == 1
    bad = served.revision(served.commit(start="exit"))
    assert served.ship("deliver").returncode == 1
    refused = served.ship("rollout")
    assert refused.returncode == 3
    assert f"the last release, of {bad}, did not start" in refused.stderr
    shown = served.ship("status").stdout
    assert "failed to start" in shown
    assert "IN PROGRESS" not in shown
    assert "FAILED" not in shown


def test_status_after_someone_else_moved_traffic(candidate: Project) -> None:
    new, old = (candidate.revision(sha) for sha in candidate.git("log", "--format=%H").split())
    candidate.done("promote")
    service = candidate.service()
    tags = [one for one in service["spec"]["traffic"] if one.get("tag")]
    shares = [{"revisionName": old, "percent": 70}, {"revisionName": new, "percent": 30}]
    service["spec"]["traffic"] = shares + tags
    candidate.put(service)
    shown = candidate.ship("status").stdout
    assert f"CHANGED: someone else gave {new} 30 %" in shown
    assert f"next: ./ship promote {candidate.name} --to PERCENT to continue" in shown
    refused = candidate.ship("promote")
    assert refused.returncode == 3
    assert "there is no next step" in refused.stderr
    candidate.done("promote", "--to", "40")
    candidate.done("promote")
    assert candidate.shares() == {old: 50, new: 50}


def test_a_dry_run_of_a_delivery_tells_that_traffic_goes_to_what_was_rolled_back(
    candidate: Project,
) -> None:
    """I10: nothing is left to deploy, but the traffic would move."""
    candidate.done("rollout")
    candidate.done("rollback", "--no-hold")
    before = candidate.service()
    text = candidate.ship("deliver", "--dry-run").stdout
    assert "would go from 0 % to 10 %, 50 %, 100 %. It was rolled back before." in text
    assert "nothing would change" not in text
    planned = candidate.done("deliver", "--dry-run")["traffic"][0]
    assert candidate.service() == before
    assert planned["after"] == candidate.done("deliver")["regions"][0]["after"]


def test_another_spelling_of_a_commit_is_the_same_delivery(served: Project) -> None:
    """I6."""
    commit = served.git("rev-parse", "HEAD")
    before = served.service()
    for spelling in (commit[:7], commit.upper()):
        assert served.done("deliver", "--commit", spelling)["commit"] == commit
    assert served.service() == before


def test_what_google_refuses_leaves_a_true_last_line(candidate: Project) -> None:
    """A service deleted in the middle, a region that is off, a quota used up for minutes."""
    _, old = (candidate.revision(sha) for sha in candidate.git("log", "--format=%H").split())
    unchanged = f"traffic is unchanged: {old} 100 %"
    gone = (404, "NOT_FOUND")
    asked: list[str] = []

    def after_the_first_reads(method: str, path: str) -> tuple[int, str] | None:
        asked.append(f"{method} {path}")
        return (429, "RESOURCE_EXHAUSTED") if len(asked) > 2 else None

    for refuse, says in (
        (lambda method, _: gone if method == "PUT" else None, unchanged),
        (lambda method, _: (403, "PERMISSION_DENIED") if method == "PUT" else None, unchanged),
        (lambda _, path: gone if "/services/" in path else None, f"no service {candidate.name}"),
        (after_the_first_reads, "nothing was written"),
    ):
        with Relay(candidate.cloud_run.url, refuse=refuse) as relay:
            ended = candidate.ship("promote", "--timeout", "1s", **{ENDPOINT_VARIABLE: relay.url})
        assert ended.returncode == 1, ended.stderr
        assert says in ended.stderr
        assert candidate.shares() == {old: 100}


def test_what_is_deleted_while_it_is_waited_for(
    candidate: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 404 that lasts ends the wait in seconds; a short one may lag behind the write."""
    monkeypatch.setattr(cloud_run, "time", clock := Clock())
    name = candidate.revision(candidate.git("rev-parse", "HEAD"))
    tag = f"sha-{name[-7:]}"
    lag: list[str] = []

    def refuse(_method: str, path: str) -> tuple[int, str] | None:
        lag.append(path)
        return (404, "NOT_FOUND") if len(lag) < 5 or deleted else None

    with Relay(candidate.cloud_run.url, refuse=refuse) as relay:
        monkeypatch.setenv(ENDPOINT_VARIABLE, relay.url)
        pipeline = pipelines.load(candidate.folder, candidate.name, "local")
        region = cloud_run.CloudRun(Google(pipeline), pipeline, "us-central1")
        for wait in (
            lambda: region.wait_until_ready(name, lambda _: None),
            lambda: region.tag_url(tag, name),
        ):
            deleted = False
            lag.clear()
            assert wait()
            assert len(lag) == 5
            deleted, began = True, clock.now
            with pytest.raises(Failed, match="does not exist any more: someone else has deleted"):
                wait()
            assert clock.now - began < 25
            region.google.patience.seconds, began = 4.0, clock.now
            with pytest.raises(Failed, match="does not exist any more"):
                wait()
            assert clock.now - began < 6
            region.google.patience.seconds = 60.0


@pytest.mark.parametrize("puts", [0, 1])
def test_a_quota_that_is_used_up_for_ten_minutes(
    candidate: Project, clock: Clock, monkeypatch: pytest.MonkeyPatch, puts: int
) -> None:
    """A verb gives up at its own limit and says what it knows; later, the same command goes on."""
    new, old = (candidate.revision(sha) for sha in candidate.git("log", "--format=%H").split())
    options = rollout.Options(services=(candidate.name,), env="local", bake="0s")
    sent: list[str] = []

    def refuse(method: str, _path: str) -> tuple[int, str] | None:
        used_up = clock.now < 600 and sent.count("PUT") >= puts
        sent.append(method)
        return (429, "RESOURCE_EXHAUSTED") if used_up else None

    with Relay(candidate.cloud_run.url, refuse=refuse) as relay:
        monkeypatch.setenv(ENDPOINT_VARIABLE, relay.url)
        call = Call("rollout", candidate.folder)
        with pytest.raises(ShipError) as raised:
            rollout.run(options, call)
        ended = failure.complete(raised.value, call.record)
        assert ended.exit_code == 1
        assert "RESOURCE_EXHAUSTED" in ended.message
        assert 30 < clock.now < 90, "the limit is 60 s, of which a rollout keeps a quarter"
        if puts:
            assert candidate.shares() == {old: 90, new: 10}
            assert "the traffic could not be moved back" in ended.message
            assert ended.message.endswith(f"to find out: ./ship status {candidate.name}")
            assert ended.hint == f"./ship rollback {candidate.name}"
        else:
            assert candidate.shares() == {old: 100}
            assert ended.message.endswith("; nothing was written")
        clock.now = 600
        assert rollout.run(options, Call("rollout", candidate.folder)) == 0
    assert candidate.shares() == {new: 100}


def test_status_shows_the_regions_that_answer(candidate: Project) -> None:
    local = candidate.pipeline / "local.yaml"
    local.write_text(local.read_text().replace("us-central1]", "us-central1, europe-west1]"))
    off = (403, "PERMISSION_DENIED")
    refuse = lambda _, path: off if "europe-west1" in path else None  # noqa: E731  (short)
    with Relay(candidate.cloud_run.url, refuse=refuse) as relay:
        ended = candidate.ship("status", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 1
    assert "100 %" in ended.stdout
    assert "FAILED in europe-west1" in ended.stdout
