"""The changes of a release. Pure: the service as read goes in, the service to write comes out."""

from __future__ import annotations

import copy
import json

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
    is_finished,
    previous,
)
from scripts.release.traffic import Target

_KNOWN_GOOD_KEPT = 10
_LOG_KEPT = 30


class StepsAside(Exception):
    """A release stops without a failure: a newer commit serves or is being released.

    Args:
        state: the service as read.
        revision: the newer commit's revision.
    """

    def __init__(self, state: State, revision: str) -> None:
        super().__init__(revision)
        self.state = state
        self.revision = revision


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One write: the new traffic and release state."""

    event: Event
    targets: list[Target] | None = None
    candidate: str | None = None
    known_good: list[str] | None = None
    hold: Hold | None = None
    resume: bool = False
    moves: bool = True
    """Whether anything would change: False needs no write (I6)."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts, when, and why, for the history."""

    by: str
    at: str
    why: str = ""

    def event(self, verb: str, revision: str = "", percent: int | None = None) -> Event:
        """Make an event of this actor."""
        return Event(
            at=self.at, verb=verb, by=self.by, revision=revision, percent=percent, why=self.why
        )


def refuse_held(state: State, override: str | None) -> None:
    """Refuse a traffic increase during a hold (I7).

    Args:
        state: the service as read.
        override: the name of the hold that the caller overrides.

    Raises:
        Refused: there is a hold, and `override` is not its name.
    """
    if state.hold and override != state.hold.name:
        raise Refused(
            f"{state.name} is on hold: {state.hold}",
            f"release it: ./ship resume {state.where}"
            f" - or override it by name: --override {state.hold.name}",
        )


def refuse_displaced(state: State, candidate: str) -> None:
    """Refuse to continue a release that another release or a rollback has replaced.

    Raises:
        Refused: `candidate` is no longer the candidate.
    """
    if state.candidate not in (None, candidate):
        raise Refused(
            f"{candidate} is no longer the candidate: {state.candidate} has taken its place",
            f"To see what is live: ./ship status {state.where}",
        )


def step_aside(state: State) -> None:
    """Stop where a newer commit is live: an older commit that comes late must not replace it.

    A rolled-back revision blocks no one: it neither serves nor is being released.

    Raises:
        StepsAside: a newer commit serves or is being released.
    """
    serving = sorted(state.shares, key=lambda name: -state.shares[name])
    for revision in [*serving, *([state.candidate] if state.candidate else [])]:
        if revision in state.newer:
            raise StepsAside(state, revision)


def require_candidate(state: State) -> str:
    """Return the revision that is being released.

    Raises:
        Refused: there is none.
    """
    if state.candidate is None:
        raise Refused(
            f"no release of {state.name} is in progress",
            f"To start one: ./ship deliver {state.where}",
        )
    return state.candidate


def step(
    state: State,
    candidate: str,
    percent: int,
    actor: Actor,
    *,
    verb: str,
    override: str | None = None,
) -> Change:
    """Give the candidate its next share; at 100 % it becomes the newest known good revision.

    Its share never shrinks: someone may have promoted it in the meantime.

    Args:
        state: the service as read just now.
        candidate: the revision being released.
        percent: its share after this step.
        actor: who asks.
        verb: the name of the action in the history.
        override: the name of the hold to override.

    Raises:
        StepsAside: a newer commit serves or is being released.
        Refused: there is a hold, the candidate is not Ready, or another release has replaced it.
    """
    step_aside(state)
    refuse_held(state, override)
    refuse_displaced(state, candidate)
    if candidate not in state.ready:
        raise Refused(f"{candidate} is not ready: only a ready revision can get traffic")
    stable = state.stable
    percent = max(percent, state.shares.get(candidate, 0))
    if stable is None or stable == candidate:
        percent = 100
    targets = traffic.shift(state.targets, candidate, percent, stable)
    done = percent == 100
    # What another tool deployed and served is trusted. What Shipway made is trusted only where it
    # is known to be good.
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
    """Return the known good revisions, `revision` first and the one that it replaced second."""
    rest = [name for name in known_good if name != revision]
    if before is not None and before != revision and before not in rest:
        rest.insert(0, before)
    return [revision, *rest][:_KNOWN_GOOD_KEPT]


def claim(state: State, revision: str, actor: Actor) -> Change:
    """Make a revision the candidate; the rollout of an earlier candidate stops at its next step.

    Call it only for a Ready revision: a commit that does not start must not end a rollout.

    Raises:
        StepsAside: a newer commit serves or is being released.
    """
    step_aside(state)
    return Change(
        event=actor.event("release", revision),
        candidate=revision,
        moves=state.candidate != revision,
    )


def choose_percent(states: list[State], steps: list[int], to: int | None) -> int:
    """Choose the share that `promote` goes to.

    Where an earlier `promote` failed in some regions, those that are behind catch up first.

    Args:
        states: the service as read, in each region.
        steps: the environment's steps.
        to: the share that was asked for; None for the next step.

    Raises:
        Refused: there is nothing to promote in any region.
        UsageError: `to` would take traffic away.
    """
    current = [
        state.shares.get(state.candidate, 0)
        for state in states
        if state.candidate is not None and not is_finished(state, state.candidate)
    ]
    if not current:
        raise Refused(
            f"nothing to promote: no release of {states[0].name} is in progress",
            f"To start one: ./ship deliver {states[0].where}",
        )
    if to is None:
        return next((step for step in steps if step > min(current)), 100)
    if to < max(current):
        raise UsageError(
            f"--to {to}: {states[0].candidate} already has {max(current)} %,"
            " and promote never takes traffic away",
            f"To take traffic away: ./ship rollback {states[0].where}",
        )
    return to


def choose_target(state: State, to: str | None) -> str:
    """Choose the revision that a rollback goes to: `to`, or the previous one.

    Args:
        state: the service as read.
        to: the revision that was asked for; None for the last known good one.

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
        return last.revision  # already rolled back: running it twice goes back once (I6)
    target = previous(state)
    if target is None:
        raise Refused(
            f"nothing to roll back to: no other revision of {state.name} is known to be good",
            f"To choose one: --to REVISION; ./ship history {state.where} lists the revisions",
        )
    return target


def roll_back(state: State, target: str, actor: Actor, *, hold: bool, verb: str) -> Change:
    """Give all traffic to `target`; the revisions that served are no longer known good.

    Args:
        state: the service as read.
        target: a Ready revision.
        actor: who asks.
        hold: whether to stop every later increase until someone resumes.
        verb: the name of the action in the history.
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
    """Move a failed release's traffic back (I5).

    All traffic goes back to `stable` while the release is the candidate. Where a newer release has
    replaced it, only its own share goes back.
    """
    if state.candidate in (None, revision):
        back = roll_back(state, stable, actor, hold=False, verb="failed")
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


def hold(state: State, name: str, actor: Actor) -> Change:
    """Put the service on hold.

    Raises:
        Refused: there is another hold.
    """
    if state.hold and state.hold.name != name:
        raise Refused(
            f"{state.name} is already on hold: {state.hold}",
            f"release it: ./ship resume {state.where}",
        )
    return Change(
        event=actor.event("hold"),
        hold=state.hold or Hold(name=name, at=actor.at, by=actor.by, why=actor.why),
        moves=state.hold is None,
    )


def tag(state: State, revision: str, actor: Actor) -> Change:
    """Give a revision a tag, and with it a URL of its own; no traffic moves."""
    name = f"check-{revision.removeprefix(f'{state.name}-')}"
    return Change(
        event=actor.event("tag", revision), targets=traffic.tag(state.targets, name, revision)
    )


def resume(state: State, actor: Actor) -> Change:
    """Release the hold, if there is one."""
    return Change(event=actor.event("resume"), resume=True, moves=state.hold is not None)


def deploy(state: State | None, desired: Object, revision: str, tag: str, actor: Actor) -> Object:
    """Make the service to write for a deploy without traffic.

    Args:
        state: the service as read; None if it does not exist yet.
        desired: the service that git declares (`manifest.render`).
        revision: the revision's name.
        tag: the revision's tag.
        actor: who asks.

    Returns:
        The whole service: the declared template, the traffic in force by revision names, and the
        labels, annotations and tags of others unchanged (I8). Where nothing serves yet the revision
        gets all traffic: Cloud Run has no service without traffic.
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
        targets = traffic.tag(state.targets, tag, revision)
        if not state.ready & state.shares.keys():
            targets = traffic.plan({revision: 100}, traffic.tags(targets))
        log = state.log
    service["spec"]["traffic"] = targets
    annotations = service["metadata"].setdefault("annotations", {})
    annotations[LOG] = _log(log, actor.event("deploy", revision))
    return service


def differs(state: State, service: Object) -> bool:
    """Return whether writing `service` would change more than the history (I6)."""
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
    """Make the service to write for a change: new traffic and memory, the template as read."""
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
