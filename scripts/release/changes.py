"""What a release does next. Pure: the service as read goes in, the service to write comes out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import msgspec

from scripts.errors import Refused, UsageError
from scripts.release import traffic
from scripts.release.manifest import Object
from scripts.release.state import (
    CANDIDATE,
    HOLD,
    KNOWN_GOOD,
    LOG,
    Event,
    Hold,
    State,
    finished,
    previous,
)
from scripts.release.traffic import Target

_KNOWN_GOOD_KEPT = 10
_LOG_KEPT = 30


Newer = Callable[[str], bool]
"""Whether a commit (full SHA) is newer than the one that is being released: a descendant of it."""


class StepsAside(Exception):
    """A release stops, and nothing is wrong: a newer commit serves, or is under way.

    Args:
        state: the service as read.
        revision: the newer commit's.
    """

    def __init__(self, state: State, revision: str) -> None:
        super().__init__(revision)
        self.state = state
        self.revision = revision


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One write: the traffic and the memory that it leaves behind."""

    event: Event
    targets: list[Target] | None = None
    candidate: str | None = None
    known_good: list[str] | None = None
    hold: Hold | None = None
    resume: bool = False
    moves: bool = True
    """Whether it is worth a write: False where everything is already so (I6)."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, when, and why: what the history shows."""

    by: str
    at: str
    why: str = ""

    def event(self, verb: str, revision: str = "", percent: int | None = None) -> Event:
        """An event of this actor."""
        return Event(
            at=self.at, verb=verb, by=self.by, revision=revision, percent=percent, why=self.why
        )


def refuse_held(state: State, override: str | None) -> None:
    """Stop a traffic increase while a hold is on (I7).

    Args:
        state: the service as read.
        override: the name of the hold that the caller means to override.

    Raises:
        Refused: there is a hold, and `override` is not its name.
    """
    if state.hold and override != state.hold.name:
        raise Refused(
            f"{state.name} is on hold: {state.hold}",
            f"release it with: ./ship resume {state.where}"
            f" - or override it by name: --override {state.hold.name}",
        )


def refuse_displaced(state: State, candidate: str) -> None:
    """Stop a release whose place another one has taken, or a rollback.

    Raises:
        Refused: `candidate` is not the release under way.
    """
    if state.candidate not in (None, candidate):
        raise Refused(
            f"{candidate} is no longer under way: {state.candidate} has taken its place",
            f"see ./ship status {state.where}",
        )


def step_aside(state: State, newer: Newer) -> None:
    """Let a newer commit be: an older one that comes late would take it back.

    What was rolled back from neither serves nor is under way, so it keeps nobody.

    Raises:
        StepsAside: a newer commit serves, or is under way.
    """
    serving = sorted(state.shares, key=lambda name: -state.shares[name])
    for revision in [*serving, *([state.candidate] if state.candidate else [])]:
        if newer(state.commits.get(revision, "")):
            raise StepsAside(state, revision)


def step(
    state: State,
    candidate: str,
    percent: int,
    actor: Actor,
    *,
    verb: str,
    override: str | None = None,
    newer: Newer = lambda _: False,
) -> Change:
    """Give the candidate its next share; at 100 % it becomes the newest known good revision.

    A share that it has already is never taken away: somebody may have promoted it meanwhile.

    Args:
        state: the service as read just now.
        candidate: the revision being released.
        percent: its share after this step.
        actor: who asks.
        verb: what the history calls it.
        override: the hold to override by name.
        newer: the commits that it steps aside for; none unless given.

    Raises:
        StepsAside: a newer commit serves, or is under way.
        Refused: a hold is on, the candidate is not Ready, or another release has taken its place.
    """
    step_aside(state, newer)
    refuse_held(state, override)
    refuse_displaced(state, candidate)
    if candidate not in state.ready:
        raise Refused(f"{candidate} is not ready: only a ready revision is given traffic")
    stable = state.stable
    percent = max(percent, state.shares.get(candidate, 0))
    if stable is None or stable == candidate:
        percent = 100
    targets = traffic.shift(state.targets, candidate, percent, stable)
    done = percent == 100
    # What others deployed and served is trusted; what Shipway made has earned its place, or not.
    before = stable if stable not in state.ours else None
    known_good = _first(candidate, state.known_good, before) if done else None
    event = actor.event(verb, candidate, percent)
    if state.hold:
        event = msgspec.structs.replace(event, why=f"overrides {override}. {event.why}".strip())
    return Change(
        event=event,
        targets=targets,
        candidate=candidate,
        known_good=known_good,
        moves=targets != state.targets
        or (known_good is not None and known_good != state.known_good),
    )


def _first(revision: str, known_good: list[str], before: str | None) -> list[str]:
    """The known good revisions with `revision` first and the one that it replaced second."""
    rest = [name for name in known_good if name != revision]
    if before is not None and before != revision and before not in rest:
        rest.insert(0, before)
    return [revision, *rest][:_KNOWN_GOOD_KEPT]


def claim(state: State, revision: str, actor: Actor, *, newer: Newer = lambda _: False) -> Change:
    """Make a revision the release that is under way; one that was stops at its next step.

    Only what is Ready claims that: a commit that does not start ends nobody's rollout.

    Raises:
        StepsAside: a newer commit serves, or is under way.
    """
    step_aside(state, newer)
    return Change(
        event=actor.event("release", revision),
        candidate=revision,
        moves=state.candidate != revision,
    )


def next_percent(state: State, steps: list[int], to: int | None) -> int:
    """The share that `promote` goes to.

    Args:
        state: the service as read.
        steps: the environment's steps.
        to: what was asked for; None for the next step.

    Raises:
        Refused: there is nothing to promote.
        UsageError: `to` would take traffic away.
    """
    if state.candidate is None or finished(state, state.candidate):
        raise Refused(
            f"nothing to promote: no release of {state.name} is under way",
            f"./ship deliver {state.where} starts one",
        )
    current = state.shares.get(state.candidate, 0)
    if to is None:
        return next((step for step in steps if step > current), 100)
    if to < current:
        raise UsageError(
            f"--to {to}: {state.candidate} already has {current} %, and promote never takes away",
            f"./ship rollback {state.where} takes traffic away",
        )
    return to


def back_to(state: State, to: str | None) -> str:
    """The revision that a rollback goes to: `to`, or the previous one.

    Args:
        state: the service as read.
        to: the revision that was asked for; None to find the last known good one.

    Raises:
        UsageError: `to` does not exist or is not Ready.
        Refused: there is nothing to roll back to.
    """
    if to is not None:
        if to not in state.ready:
            ready = ", ".join(sorted(state.ready)) or "none"
            raise UsageError(
                f"--to {to}: no such ready revision of {state.name}", f"ready: {ready}"
            )
        return to
    last = next((event for event in reversed(state.log) if event.percent is not None), None)
    if last and last.verb == "rollback" and state.shares == {last.revision: 100}:
        return last.revision  # two people, or one in a hurry: once is enough (I6)
    target = previous(state)
    if target is None:
        raise Refused(
            f"nothing to roll back to: no other revision of {state.name} is known to be good",
            f"./ship history {state.where} lists the revisions; name one with --to REVISION",
        )
    return target


def rollback(state: State, target: str, actor: Actor, *, hold: bool, verb: str) -> Change:
    """Give everything to `target`, and forget as known good what served instead.

    Args:
        state: the service as read.
        target: a Ready revision.
        actor: who asks.
        hold: whether to stop every later increase until somebody resumes.
        verb: what the history calls it.
    """
    left = [name for name in state.shares if name != target]
    bad = state.candidate if state.candidate in left else next(iter(left), None)
    targets = traffic.shift(state.targets, target, 100, None)
    known_good = _first(target, [name for name in state.known_good if name not in left], None)
    new_hold = state.hold
    if hold and bad and not state.hold:
        name = f"rollback-{bad.removeprefix(f'{state.name}-')}"
        new_hold = Hold(name=name, at=actor.at, by=actor.by, why=actor.why)
    return Change(
        event=actor.event(verb, target, 100),
        targets=targets,
        candidate=target,
        known_good=known_good,
        hold=new_hold,
        moves=targets != state.targets or new_hold != state.hold,
    )


def withdraw(state: State, revision: str, stable: str, actor: Actor) -> Change:
    """Take a failed release's traffic away (I5).

    While it is the release under way everything goes back to `stable`. When a newer one has taken
    its place only its own share does: the rest is the newer one's.
    """
    if state.candidate in (None, revision):
        back = rollback(state, stable, actor, hold=False, verb="failed")
        if state.trusts(stable):
            return back
        good = [name for name in state.known_good if name != stable]
        return msgspec.structs.replace(back, known_good=good)
    shares = {name: part for name, part in state.shares.items() if name != revision}
    if stable not in shares and revision not in state.shares:
        return Change(event=actor.event("failed", revision), moves=False)
    shares[stable] = shares.get(stable, 0) + state.shares.get(revision, 0)
    targets = traffic.plan(shares, traffic.tags(state.targets))
    return Change(
        event=actor.event("failed", revision, 0), targets=targets, moves=targets != state.targets
    )


def held(state: State, name: str, actor: Actor) -> Change:
    """Put the service on hold.

    Raises:
        Refused: another hold is on.
    """
    if state.hold and state.hold.name != name:
        raise Refused(
            f"{state.name} is already on hold: {state.hold}", f"./ship resume {state.where}"
        )
    return Change(
        event=actor.event("hold"),
        hold=state.hold or Hold(name=name, at=actor.at, by=actor.by, why=actor.why),
        moves=state.hold is None,
    )


def tagged(state: State, revision: str, actor: Actor) -> Change:
    """Give a revision a tag, and so a URL of its own; no traffic moves."""
    name = f"check-{revision.removeprefix(f'{state.name}-')}"
    return Change(
        event=actor.event("tag", revision), targets=traffic.tagged(state.targets, name, revision)
    )


def resumed(state: State, actor: Actor) -> Change:
    """Release the hold, if one is on."""
    return Change(event=actor.event("resume"), resume=True, moves=state.hold is not None)


def deployed(state: State | None, desired: Object, revision: str, tag: str, actor: Actor) -> Object:
    """The service to write for a deploy without traffic.

    Args:
        state: the service as read; None where it does not exist yet.
        desired: what git declares (`manifest.render`).
        revision: the revision's name.
        tag: the tag that the revision gets.
        actor: who asks.

    Returns:
        The whole service: the declared template, the traffic in force by revision names, other
        people's labels, annotations and tags as they were (I8). Where nothing serves yet the
        revision gets everything: Cloud Run knows no service without traffic.
    """
    if state is None:
        service = copy.deepcopy(desired)
        targets = traffic.plan({revision: 100}, {tag: revision})
        log: list[Event] = []
    else:
        service = copy.deepcopy(state.service)
        service.pop("status", None)
        metadata = service["metadata"]
        for key in ("labels", "annotations"):
            metadata[key] = {**(metadata.get(key) or {}), **desired["metadata"].get(key, {})}
        service["spec"] = {**service["spec"], **copy.deepcopy(desired["spec"])}
        targets = traffic.tagged(state.targets, tag, revision)
        if not state.ready & state.shares.keys():
            targets = traffic.plan({revision: 100}, traffic.tags(targets))
        log = state.log
    service["spec"]["traffic"] = targets
    annotations = service["metadata"].setdefault("annotations", {})
    annotations[LOG] = _log(log, actor.event("deploy", revision))
    return service


def differs(state: State, service: Object) -> bool:
    """Whether writing `service` would change more than the history's last line (I6)."""
    return _comparable(state.service) != _comparable(service)


def _comparable(service: Object) -> Object:
    metadata = service["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != LOG}
    return {
        "spec": service["spec"],
        "labels": metadata.get("labels") or {},
        "annotations": annotations,
    }


def apply(state: State, change: Change) -> Object:
    """The service to write for a change: the template exactly as read, traffic and memory new."""
    service = copy.deepcopy(state.service)
    service.pop("status", None)
    annotations = service["metadata"].setdefault("annotations", {})
    if change.targets is not None:
        service["spec"]["traffic"] = change.targets
    if change.candidate is not None:
        annotations[CANDIDATE] = change.candidate
    if change.known_good is not None:
        annotations[KNOWN_GOOD] = json.dumps(change.known_good)
    if change.hold is not None:
        annotations[HOLD] = msgspec.json.encode(change.hold).decode()
    if change.resume:
        annotations.pop(HOLD, None)
    annotations[LOG] = _log(state.log, change.event)
    return service


def _log(log: list[Event], event: Event) -> str:
    return msgspec.json.encode([*log, event][-_LOG_KEPT:]).decode()
