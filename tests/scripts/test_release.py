"""The plans of releases: any sequence of verbs, on a model of the service."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scripts.errors import Refused, UsageError
from scripts.release import changes, choices, deploys, manifest, state, traffic
from scripts.release.changes import Actor
from scripts.release.state import State
from tests.discovery import document_of

ACTOR = Actor(by="someone", at="2026-01-02T03:04:05Z", why="because")


def revision(name: str, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def declared(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "app", "labels": {"commit-sha": name}},
        "spec": {
            "template": {"metadata": {"name": name}, "spec": {"containers": [{"image": "i"}]}}
        },
    }


class Releases(RuleBasedStateMachine):
    """Deploys, promotions, rollbacks, holds and other tools' changes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.service: dict[str, Any] = {}
        self.revisions: list[dict[str, Any]] = []
        self.foreign_tags: dict[str, str] = {}

    @initialize()
    def first_release(self) -> None:
        name = f"app-{0:07}"
        self._write(deploys.deploy(None, declared(name), name, manifest.tag(f"{0:07}"), ACTOR))
        self.revisions.append(revision(name))

    def _write(self, service: dict[str, Any]) -> None:
        assert "latestRevision" not in str(service), "I1"
        service = {**service, "status": {"traffic": service["spec"]["traffic"]}}
        self.service = service

    @property
    def state(self) -> State:
        return state.read_state(self.service, self.revisions, "app")

    @rule(ready=st.sampled_from(["True", "True", "False"]))
    def deploy(self, ready: str) -> None:
        sha = f"{len(self.revisions):07}"
        name = f"app-{sha}"
        before = self.state
        self._write(deploys.deploy(before, declared(name), name, manifest.tag(sha), ACTOR))
        self.revisions.append(revision(name, ready))
        assert self.state.shares == before.shares, "a deploy moves no traffic"
        if ready == "True":
            self._write(changes.apply(self.state, changes.claim(self.state, name, ACTOR)))

    @rule(to=st.none() | st.integers(1, 100))
    def promote(self, to: int | None) -> None:
        before = self.state
        try:
            percent = choices.choose_percent([before], [10, 50, 100], to)
            change = changes.step(before, before.candidate or "", percent, ACTOR, verb="promote")
        except (Refused, UsageError):
            return
        assert before.hold is None, "I7"
        assert before.candidate in before.ready, "I4"
        self._write_as_shown(before, change)
        after = self.state
        assert after.shares.get(before.candidate, 0) >= before.shares.get(before.candidate, 0)
        # Typed again before it was concluded, it takes no second step.
        if change.moves:
            assert choices.choose_percent([after], [10, 50, 100], None) == percent
            again = changes.step(after, before.candidate or "", percent, ACTOR, verb="promote")
            assert not again.moves
        self._write_as_shown(after, changes.conclude(after, before.candidate or ""))
        assert self.state.in_progress is None
        assert self.state.shares == after.shares

    @rule(fails=st.booleans())
    def rollout(self, fails: bool) -> None:
        """Steps as a rollout takes them; a dry run takes the same on states that it makes up."""
        before = self.state
        try:
            revision = choices.revision_to_roll_out(before)
            choices.refuse_held(before, None)
        except Refused:
            return
        stable = before.stable
        if state.is_finished(before, revision):
            return
        planned = before
        for to in (None, 10, 50, 100):
            now = self.state
            changed = self._rollout_step(now, revision, to)
            imagined = self._rollout_step(planned, revision, to)
            assert changed == imagined, "the dry run says what is written"
            self._write_as_shown(now, changed)
            planned = self._shown(planned, imagined)
            assert planned.shares == self.state.shares
            if fails and to == 50 and stable not in (None, revision):
                assert stable is not None
                withdrawn = changes.withdraw(self.state, revision, stable, ACTOR)
                self._write_as_shown(self.state, withdrawn)
                assert self.state.shares == {stable: 100}, "I5"
                assert choices.revision_to_roll_out(self.state) == revision
                return
        self._write_as_shown(self.state, changes.conclude(self.state, revision))
        assert state.is_finished(self.state, revision)

    def _rollout_step(self, now: State, revision: str, to: int | None) -> changes.Change:
        if to is None:
            return changes.claim(now, revision, ACTOR, to=10)
        return changes.step(now, revision, to, ACTOR, verb="rollout")

    def _shown(self, before: State, change: changes.Change) -> State:
        """Return what a dry run shows for a change."""
        if not change.moves:
            return before
        service = {**changes.apply(before, change), "status": before.status}
        return state.read_state(service, [*before.revisions.values()], "app")

    def _write_as_shown(self, before: State, change: changes.Change) -> None:
        """Write a change, if there is one; a dry run shows what is there after it (I10)."""
        shown = self._shown(before, change)
        if change.moves:
            self._write(changes.apply(before, change))
        assert shown.shares == self.state.shares
        assert (shown.hold, shown.candidate, shown.known_good, shown.failure) == (
            self.state.hold, self.state.candidate, self.state.known_good, self.state.failure,
        )  # fmt: skip

    @rule()
    def rollback(self) -> None:
        before = self.state
        try:
            target = choices.choose_target(before, None)
        except (Refused, UsageError):
            return
        assert before.trusts(target), "I4"
        change = changes.roll_back(before, target, ACTOR, hold=True, verb="rollback")
        self._write_as_shown(before, change)
        after = self.state
        assert after.in_progress is None
        assert after.failure is None or not change.moves
        assert after.shares == {target: 100}
        assert target in before.ready, "I4"
        assert after.hold is not None
        # A later rollback never goes to a revision that was rolled back from.
        assert not set(after.known_good) & (set(before.shares) - {target})

    @rule()
    def hold(self) -> None:
        before = self.state
        if before.hold is None:
            self._write(changes.apply(before, changes.hold(before, "h", ACTOR)))
            assert self.state.shares == before.shares

    @precondition(lambda self: self.state.hold)
    @rule()
    def resume(self) -> None:
        before = self.state
        self._write(changes.apply(before, changes.resume(before, ACTOR)))
        assert self.state.hold is None
        assert self.state.shares == before.shares

    @rule(percent=st.integers(1, 99), data=st.data())
    def someone_moves_traffic(self, percent: int, data: st.DataObject) -> None:
        ready = st.sampled_from(sorted(self.state.ready))
        shares = {data.draw(ready): 100}
        shares = dict.fromkeys(shares, 100 - percent) | {data.draw(ready): percent}
        shares = shares if len(shares) > 1 else dict.fromkeys(shares, 100)
        targets = traffic.plan(shares, traffic.tags(self.service["spec"]["traffic"]))
        self._write({**self.service, "spec": {**self.service["spec"], "traffic": targets}})

    @rule(tag=st.sampled_from(["beta", "preview-7"]), data=st.data())
    def someone_tags(self, tag: str, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([r["metadata"]["name"] for r in self.revisions]))
        self.foreign_tags[tag] = name
        self._write(
            {
                **self.service,
                "spec": {
                    **self.service["spec"],
                    "traffic": traffic.tag(self.service["spec"]["traffic"], tag, name),
                },
            }
        )

    @invariant()
    def sums_to_100(self) -> None:
        """I3."""
        if self.service:
            assert sum(self.state.shares.values()) == 100

    @invariant()
    def foreign_tags_survive(self) -> None:
        """I8."""
        if self.service:
            assert self.foreign_tags.items() <= traffic.tags(self.state.targets).items()


TestReleases = Releases.TestCase
TestReleases.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_share_is_never_taken_away_by_a_step() -> None:
    """Someone promoted the release by hand while its rollout was at an earlier step."""
    now = served(("app-2", 20), ("app-9", 80))
    change = changes.step(now, "app-9", 50, ACTOR, verb="rollout")
    assert not change.moves


def test_a_revision_of_shipway_is_known_good_only_after_its_checks() -> None:
    """I4: a first revision serves before its checks; if they fail, no rollback goes to it."""
    now = served(("app-2", 50), ("app-9", 50))
    change = changes.step(now, "app-9", 100, ACTOR, verb="rollout")
    assert change.known_good == ["app-9", "app-2"], "others' revision has served well"
    now = served(("app-2", 50), ("app-9", 50), ours=("app-2", "app-9"))
    change = changes.step(now, "app-9", 100, ACTOR, verb="rollout")
    assert change.known_good == ["app-9"]


def served(
    *shares: tuple[str, int],
    known_good: str = "[]",
    candidate: str = "app-9",
    ours: tuple[str, ...] = (),
) -> State:
    """Return a service with these `shares`; every revision is Ready, and `ours` are Shipway's."""
    service = {
        "metadata": {
            "name": "app",
            "annotations": {"shipway/known-good": known_good, "shipway/candidate": candidate},
        },
        "spec": {"traffic": [{"revisionName": n, "percent": p} for n, p in shares], "template": {}},
    }
    names = {name for name, _ in shares} | {candidate, "app-1", "app-2"}
    revisions = [revision(name) for name in names]
    for one in revisions:
        if one["metadata"]["name"] in ours:
            one["metadata"]["labels"] = {"managed-by": "shipway"}
    return state.read_state(service, revisions, "app")


def test_while_two_serve_a_rollback_goes_to_the_stable_one_not_to_the_one_before_it() -> None:
    now = served(("app-2", 90), ("app-9", 10), known_good='["app-2", "app-1"]')
    assert choices.choose_target(now, None) == "app-2"


def test_a_finished_release_rolls_back_to_the_one_before_it() -> None:
    now = served(("app-9", 100), known_good='["app-9", "app-2", "app-1"]')
    assert choices.choose_target(now, None) == "app-2"


def test_an_unreadable_hold_stays_in_force() -> None:
    """I7: a broken annotation counts as a hold."""
    now = served(("app-2", 100))
    now.service["metadata"]["annotations"]["shipway/hold"] = "{broken"
    now = state.read_state(now.service, [revision("app-9"), revision("app-2")], "app")
    with pytest.raises(Refused, match="unreadable"):
        changes.step(now, "app-9", 10, ACTOR, verb="promote")


def test_a_hold_is_overridden_by_its_name_only() -> None:
    """I7."""
    now = served(("app-2", 100))
    held = changes.apply(now, changes.hold(now, "incident-42", ACTOR))
    now = state.read_state(held, [revision("app-9"), revision("app-2")], "app")
    with pytest.raises(Refused, match="incident-42"):
        changes.step(now, "app-9", 10, ACTOR, verb="promote", override="incident-41")
    change = changes.step(now, "app-9", 10, ACTOR, verb="promote", override="incident-42")
    assert change.targets
    assert traffic.shares(change.targets) == {"app-2": 90, "app-9": 10}


def test_a_displaced_release_neither_gets_traffic_nor_moves_it_back() -> None:
    now = served(("app-2", 100), candidate="app-9")
    with pytest.raises(Refused, match="no longer the candidate"):
        changes.step(now, "app-8", 10, ACTOR, verb="rollout")
    assert not changes.withdraw(now, "app-8", "app-2", ACTOR).moves


def after(now: State, *made: changes.Change) -> State:
    """Return the service after some changes."""
    for change in made:
        service = changes.apply(now, change)
        now = state.read_state(service, [*now.revisions.values()], "app")
    return now


def test_a_release_that_failed_before_it_got_traffic_is_remembered() -> None:
    """The same command tries it again, and does not say that all is done."""
    now = served(("app-2", 100), known_good='["app-2"]', candidate="app-2")
    assert choices.revision_to_roll_out(now) == "app-2"
    deployed = deploys.deploy(now, declared("app-1"), "app-1", "sha-1", ACTOR)
    now = state.read_state(deployed, [*now.revisions.values()], "app")
    with pytest.raises(Refused, match="the last release, of app-1, is not released"):
        choices.revision_to_roll_out(now)
    now = after(now, changes.withdraw(now, "app-1", "app-2", ACTOR))
    assert (now.shares, now.candidate, now.known_good) == ({"app-2": 100}, "app-2", ["app-2"])
    assert now.failure
    assert choices.revision_to_roll_out(now) == now.failure.revision == "app-1"


def test_a_release_that_failed_does_not_hide_one_that_has_begun_since() -> None:
    now = served(("app-9", 100), known_good='["app-9", "app-2"]', candidate="app-9")
    assert not changes.withdraw(now, "app-1", "app-2", ACTOR).moves, "a newer one is finished"


def test_a_share_that_someone_else_gave_has_no_next_step() -> None:
    """A known good candidate would get all traffic, although it got 10 % by hand only."""
    now = served(("app-9", 100), known_good='["app-9", "app-2"]', ours=("app-2", "app-9"))
    now = after(now, changes.roll_back(now, "app-2", ACTOR, hold=False, verb="rollback"))
    now.service["spec"]["traffic"] = traffic.plan({"app-2": 10, "app-9": 90}, {})
    edited = state.read_state(now.service, [*now.revisions.values()], "app")
    with pytest.raises(Refused, match="app-2 has 10 % of the traffic, which Shipway did not give"):
        choices.choose_percent([edited], [10, 50, 100], None)
    assert choices.choose_percent([edited], [10, 50, 100], 35) == 35


def test_a_known_good_candidate_gets_the_share_that_was_asked_for() -> None:
    """Where another revision may serve the rest; it used to get all traffic."""
    now = served(("app-2", 10), ("app-9", 90), known_good='["app-2"]', candidate="app-2")
    change = changes.step(now, "app-2", 35, ACTOR, verb="promote")
    assert change.targets
    assert traffic.shares(change.targets) == {"app-9": 65, "app-2": 35}


def test_a_rollback_after_resume_holds_again() -> None:
    now = served(("app-2", 50), ("app-9", 50), known_good='["app-2"]')
    now = after(now, changes.step(now, "app-9", 100, ACTOR, verb="promote"))
    now = after(now, changes.roll_back(now, "app-2", ACTOR, hold=True, verb="rollback"))
    first = now.hold
    now = after(now, changes.resume(now, ACTOR))
    assert first
    assert now.hold is None
    now = after(now, changes.roll_back(now, "app-2", ACTOR, hold=True, verb="rollback"))
    assert now.hold
    assert now.hold.name == first.name == "rollback-9"
    assert now.shares == {"app-2": 100}


def test_a_tag_goes_when_its_release_is_over() -> None:
    """A revision that was rolled back from; I8: nobody else's tag."""
    old, new = "app-aaaaaaa", "app-bbbbbbb-2"
    now = served((old, 90), (new, 10), known_good=f'["{old}"]', candidate=new)
    tags = {"sha-aaaaaaa": old, "sha-bbbbbbb": new}
    foreign = {"beta": new, "sha-ccccccc": new, "check-it": new, "check-1": "app-1"}
    now.service["spec"]["traffic"] = traffic.plan(now.shares, tags | foreign)
    now = state.read_state(now.service, [revision(old), revision(new)], "app")
    now = after(now, changes.step(now, new, 50, ACTOR, verb="rollout"))
    own_foreign = {tag: name for tag, name in foreign.items() if tag != "check-1"}
    assert traffic.tags(now.targets) == tags | own_foreign, "a check that is over loses its tag"
    failed = after(now, changes.withdraw(now, new, old, ACTOR))
    assert traffic.tags(failed.targets) == tags | own_foreign, "a rollout tries it again"
    back = after(now, changes.roll_back(now, old, ACTOR, hold=True, verb="rollback"))
    assert traffic.tags(back.targets) == {"sha-aaaaaaa": old} | own_foreign
    again = after(back, changes.tag(back, new, ACTOR))
    assert again.tag_of(new)
    held = after(again, changes.resume(again, ACTOR), changes.tag(again, old, ACTOR))
    assert "check-bbbbbbb-2" in traffic.tags(held.targets), "the check of another still runs"


def test_a_release_that_is_being_deployed_keeps_its_tag_while_another_one_moves() -> None:
    old, moving, new = "app-aaaaaaa", "app-bbbbbbb", "app-ccccccc"
    now = served((old, 90), (moving, 10), known_good=f'["{old}"]', candidate=moving)
    written = deploys.deploy(now, declared(new), new, "sha-ccccccc", ACTOR)
    now = state.read_state(written, [revision(name) for name in (old, moving, new)], "app")
    now = after(now, changes.step(now, moving, 50, ACTOR, verb="rollout"))
    assert now.tag_of(new) == "sha-ccccccc"
    now = after(now, changes.claim(now, new, ACTOR), changes.tag(now, old, ACTOR))
    now = after(now, changes.step(now, new, 100, ACTOR, verb="rollout"))
    assert now.tag_of(new) == "sha-ccccccc"


def test_a_displaced_release_that_fails_gives_up_its_own_share_only() -> None:
    """I5: the newer release keeps its share."""
    now = served(("app-2", 70), ("app-8", 20), ("app-9", 10), candidate="app-9")
    change = changes.withdraw(now, "app-8", "app-2", ACTOR)
    assert change.targets
    assert traffic.shares(change.targets) == {"app-2": 90, "app-9": 10}


def test_a_rollback_goes_to_a_good_commit_that_was_delivered_again() -> None:
    """I4: never to the bad one that also serves, although the good one is the candidate now."""
    now = served(
        ("app-2", 90), ("app-9", 10), known_good='["app-2"]', candidate="app-2",
        ours=("app-2", "app-9"),
    )  # fmt: skip
    assert now.stable == "app-2"
    assert choices.choose_target(now, None) == "app-2"


def test_a_rollback_typed_twice_goes_back_once() -> None:
    """I6: two people, or one in a hurry."""
    now = served(("app-9", 100), known_good='["app-9", "app-2", "app-1"]')
    assert choices.choose_target(now, None) == "app-2"
    service = changes.apply(now, changes.roll_back(now, "app-2", ACTOR, hold=True, verb="rollback"))
    names = ("app-1", "app-2", "app-9")
    now = state.read_state(service, [revision(name) for name in names], "app")
    assert choices.choose_target(now, None) == "app-2"
    assert not changes.roll_back(now, "app-2", ACTOR, hold=True, verb="rollback").moves


def test_a_template_goes_back_exactly_as_it_was_read() -> None:
    """I3: a traffic-only write that touched the template would make a new revision."""
    now = served(("app-2", 100))
    template = {"metadata": {"name": "x", "annotations": {"b": "1", "a": "2"}}, "spec": {"z": []}}
    now.service["spec"]["template"] = template
    change = changes.step(now, "app-9", 10, ACTOR, verb="promote")
    assert changes.apply(now, change)["spec"]["template"] == template


def test_a_deploy_keeps_the_labels_and_annotations_of_others() -> None:
    """I8."""
    now = served(("app-2", 100))
    now.service["metadata"]["annotations"]["acme.example/team"] = "web"
    now.service["metadata"]["labels"] = {"cost-center": "7"}
    written = deploys.deploy(now, declared("app-9"), "app-9", "sha-9", ACTOR)
    assert written["metadata"]["annotations"]["acme.example/team"] == "web"
    assert written["metadata"]["labels"] == {"cost-center": "7", "commit-sha": "app-9"}


@given(st.integers(1, 99))
def test_where_nothing_ready_serves_a_release_takes_everything(percent: int) -> None:
    now = served(("app-2", 100))
    now = state.read_state(now.service, [revision("app-2", "False"), revision("app-9")], "app")
    change = changes.step(now, "app-9", percent, ACTOR, verb="rollout")
    assert change.targets
    assert traffic.shares(change.targets) == {"app-9": 100}


def test_a_list_that_lags_behind_the_service_is_not_believed() -> None:
    """I8: nothing is known of a revision that was not read; only one that is gone loses its tag."""
    service = served(("app-2", 100)).service
    one = "app-1234567"
    service["spec"]["traffic"] += [{"revisionName": one, "tag": "sha-1234567"}]
    now = state.read_state(service, [], "app")
    assert traffic.tags(now.targets) == {"sha-1234567": one}
    assert (now.stable, now.unknown) == ("app-2", {one, "app-2", "app-9"})
    written = deploys.deploy(now, declared("app-9"), "app-9", "sha-9999999", ACTOR)
    assert traffic.shares(written["spec"]["traffic"]) == {"app-2": 100}
    now = state.read_state(service, [], "app", gone=[one])
    assert traffic.tags(now.targets) == {}


def test_what_is_served_is_told_from_what_was_asked_for() -> None:
    service = served(("app-2", 90), ("app-9", 10)).service
    refused = {"type": "RoutesReady", "status": "False", "message": "Revision is not ready."}
    service["status"] = {
        "traffic": [{"revisionName": "app-2", "percent": 100}],
        "conditions": [refused],
    }
    now = state.read_state(service, [revision("app-2"), revision("app-9")], "app")
    assert (now.shares, now.served) == ({"app-2": 90, "app-9": 10}, {"app-2": 100})
    assert not now.in_force
    assert now.not_taken == "Revision is not ready."


def test_a_clock_that_is_wrong_by_minutes_changes_no_plan() -> None:
    """Times are only shown: a step left by a machine whose clock is ahead is taken up as any."""
    now = served(("app-2", 100))
    ahead = Actor(by="other", at="2999-01-01T00:00:00Z")
    service = changes.apply(now, changes.step(now, "app-9", 10, ahead, verb="promote"))
    now = state.read_state(service, [revision("app-2"), revision("app-9")], "app")
    assert choices.choose_percent([now], [10, 50, 100], None) == 10


def annotations_at_google() -> str:
    """Return what Cloud Run's own reference says of a service's annotations."""
    service = document_of("run.v2")["schemas"]["GoogleCloudRunV2Service"]["properties"]
    return str(service["annotations"]["description"])


def test_the_longest_of_everything_stays_far_below_the_limit() -> None:
    """Cloud Run follows Kubernetes' limit; the last change of traffic is always kept."""
    assert (
        "follows Kubernetes annotations' namespacing, limits, and rules" in annotations_at_google()
    )
    name = "a" * 60
    long = Actor(by="\U0001f600" * 300, at="2026-01-02T03:04:05Z", why="\U0001f600" * 3000)
    now = served((f"{name}-2", 50), (f"{name}-9", 50), candidate=f"{name}-9")
    back = changes.roll_back(now, f"{name}-2", long, hold=True, verb="rollback")
    written = changes.apply(now, back)
    step = changes.step(now, f"{name}-9", 60, long, verb="promote")
    change = changes.Change(
        event=step.event,
        in_progress=step.in_progress,
        failure=changes.withdraw(now, f"{name}-9", f"{name}-2", long).failure,
        known_good=[f"{name}-{number}" for number in range(10)],
        moves=True,
    )
    for number in range(40):
        now = state.read_state(written, [revision(f"{name}-2")], "app")
        event = long.event("deploy", f"{name}-{number}")
        written = changes.apply(now, msgspec.structs.replace(change, event=event))
    annotations = written["metadata"]["annotations"]
    assert set(annotations) == {
        "shipway/candidate", "shipway/known-good", "shipway/hold", "shipway/log",
        "shipway/in-progress", "shipway/failed",
    }  # fmt: skip
    assert sum(len(key) + len(value.encode()) for key, value in annotations.items()) < 100_000
    log = state.read_state(written, [], "app").log
    assert [event.verb for event in log if event.percent is not None] == ["rollback"]


def test_a_huge_hold_of_someone_else_is_shown_short_and_kept_whole() -> None:
    """I8."""
    now = served(("app-2", 50), ("app-9", 50))
    text = json.dumps({"name": "h", "at": "?", "by": "b" * 10_000, "why": "w" * 100_000})
    now.service["metadata"]["annotations"]["shipway/hold"] = text
    now = state.read_state(now.service, [revision("app-2"), revision("app-9")], "app")
    assert len(str(now.hold)) < 1000
    change = changes.roll_back(now, "app-2", ACTOR, hold=True, verb="rollback")
    assert changes.apply(now, change)["metadata"]["annotations"]["shipway/hold"] == text


def test_a_thousand_revisions_and_two_thousand_tags() -> None:
    now = served(("app-2", 100))
    tags = {f"preview-{number}": "app-1" for number in range(2000)}
    now.service["spec"]["traffic"] = traffic.plan(now.shares, tags)
    listed = [revision(f"app-{number}") for number in range(1000)]
    now = state.read_state(now.service, listed, "app")
    change = changes.step(now, "app-9", 10, ACTOR, verb="promote")
    assert change.targets
    assert traffic.tags(change.targets) == tags


def test_the_history_is_kept_short() -> None:
    now = served(("app-2", 50), ("app-9", 50))
    back = changes.roll_back(now, "app-2", ACTOR, hold=False, verb="rollback")
    now = state.read_state(changes.apply(now, back), [revision("app-2")], "app")
    for _ in range(100):
        written = changes.apply(now, changes.resume(now, ACTOR))
        now = state.read_state(written, [revision("app-2")], "app")
    assert len(now.log) == 30
    assert now.log[0].verb == "rollback", "the last change of traffic is kept"
    assert now.log[-1].by == "someone"
