"""The changes of a release. Pure: the service as read goes in, the service to write comes out."""

from __future__ import annotations

import copy

import msgspec
from msgspec import UNSET, UnsetType

from scripts.errors import Refused
from scripts.release import manifest, memory, traffic
from scripts.release.choices import refuse_displaced, refuse_held, step_aside
from scripts.release.manifest import Object
from scripts.release.memory import (
    CANDIDATE,
    FAILED,
    HOLD,
    IN_PROGRESS,
    KNOWN_GOOD,
    LOG,
    Event,
    Failure,
    Hold,
    InProgress,
)
from scripts.release.state import State, drop_spent_tags, is_finished
from scripts.release.traffic import Target

_KNOWN_GOOD_KEPT = 10


class NotReady(Refused):
    """The candidate is not Ready: it gets no traffic, and loses what it has."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One write: the new traffic and release state. What is left out stays."""

    event: Event | None
    """None: nothing for the history."""
    targets: list[Target] | None = None
    candidate: str | None = None
    known_good: list[str] | None = None
    hold: Hold | UnsetType | None = UNSET
    in_progress: InProgress | UnsetType | None = UNSET
    failure: Failure | UnsetType | None = UNSET
    moves: bool = True
    """Whether anything would change: False needs no write (I6)."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts, when, and why, for the history."""

    by: str
    at: str
    why: str = ""

    def event(self, verb: str, revision: str = "", percent: int | None = None) -> Event:
        """Make an event of this actor."""
        return memory.short_event(
            Event(
                at=self.at, verb=verb, by=self.by, revision=revision, percent=percent, why=self.why
            )
        )


def step(
    state: State,
    candidate: str,
    percent: int,
    actor: Actor,
    *,
    verb: str,
    override: str | None = None,
    until: str = "",
) -> Change:
    """Give the candidate its next share; at 100 % it becomes the newest known good revision.

    Its share never shrinks: someone may have promoted it in the meantime. The same write notes that
    the step is in progress, until `conclude`.

    Args:
        state: the service as read just now.
        candidate: the revision being released.
        percent: its share after this step.
        actor: who asks.
        verb: the name of the action in the history.
        override: the name of the hold to override.
        until: when the step is over at the latest (RFC 3339), if a command watches it.

    Raises:
        StepsAside: a newer commit serves or is being released.
        NotReady: the candidate is not Ready.
        Refused: there is a hold, or another release has replaced it.
    """
    step_aside(state)
    refuse_held(state, override)
    refuse_displaced(state, candidate)
    if candidate not in state.ready:
        raise NotReady(f"{candidate} is not ready: only a ready revision can get traffic")
    stable = state.beside(candidate)
    share = state.shares.get(candidate, 0)
    percent = max(percent, share)
    if stable is None:
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
        in_progress=InProgress(
            verb=verb,
            revision=candidate,
            start=share,
            to=percent,
            by=event.by,
            at=event.at,
            until=until,
        ),
        failure=None,
        moves=targets != state.targets
        or (known_good is not None and known_good != state.known_good)
        # The step has a watcher again, and others must see that.
        or state.unwatched(event.at) is not None,
    )


def conclude(state: State, revision: str) -> Change:
    """Note that a revision's step has ended: it was made and checked. No traffic moves.

    A step to a greater share that someone has begun since then stays in progress.
    """
    left = state.left(revision)
    ended = left is not None and left.to <= state.shares.get(revision, 0)
    return Change(event=None, in_progress=None, moves=ended)


def _first(revision: str, known_good: list[str], before: str | None) -> list[str]:
    """Return the known good revisions, `revision` first and the one that it replaced second."""
    rest = [name for name in known_good if name != revision]
    if before is not None and before != revision and before not in rest:
        rest.insert(0, before)
    return [revision, *rest][:_KNOWN_GOOD_KEPT]


def claim(state: State, revision: str, actor: Actor, *, to: int | None = None) -> Change:
    """Make a revision the candidate; the rollout of an earlier candidate stops at its next step.

    Call it only for a Ready revision: a commit that does not start must not end a rollout.

    Args:
        state: the service as read.
        revision: the revision.
        actor: who asks.
        to: the first share of the rollout that begins; None where none does.

    Raises:
        StepsAside: a newer commit serves or is being released.
    """
    step_aside(state)
    event = actor.event("release", revision)
    share = state.shares.get(revision, 0)
    begun = to is not None and to > share
    return Change(
        event=event,
        candidate=revision,
        in_progress=InProgress(
            verb="rollout", revision=revision, start=share, to=to or 0, by=event.by, at=event.at
        )
        if begun
        else None,
        failure=None,
        moves=state.candidate != revision,
    )


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
    if bad is None:  # already rolled back: the hold is named as the first time
        moved = (e.revision for e in reversed(state.log) if e.percent and e.revision != target)
        bad = next(moved, target)
    targets = traffic.shift(state.targets, target, 100, None)
    known_good = _first(target, [name for name in state.known_good if name not in left], None)
    event = actor.event(verb, target, 100)
    new_hold: Hold | UnsetType = UNSET
    if hold and not state.hold:
        name = f"rollback-{bad.removeprefix(f'{state.name}-')}"
        new_hold = Hold(name=name, at=event.at, by=event.by, why=event.why)
    return Change(
        event=event,
        targets=targets,
        candidate=target,
        known_good=known_good,
        hold=new_hold,
        in_progress=None,
        failure=None,
        moves=targets != state.targets or new_hold is not UNSET or state.in_progress is not None,
    )


def withdraw(state: State, revision: str, stable: str, actor: Actor) -> Change:
    """Move a failed release's traffic back (I5), and note that it failed.

    All traffic goes back to `stable` while the release is the candidate. Where a newer release has
    replaced it, only its own share goes back. A release that failed before it became the candidate
    moved no traffic; that it failed is noted where no other release has begun since.

    Args:
        state: the service as read.
        revision: the release that failed.
        stable: what serves instead.
        actor: who asked for the release; `why` is what failed.
    """
    ended: UnsetType | None = None if state.left(revision) else UNSET
    if state.candidate in (None, revision):
        back = roll_back(state, stable, actor, hold=False, verb="failed")
        known_good = back.known_good or []
        if not state.trusts(stable):
            known_good = [name for name in known_good if name != stable]
        event = actor.event("failed", revision)
        failure = Failure(revision=revision, at=event.at, by=event.by, why=event.why)
        moves = back.targets != state.targets or ended is None
        return msgspec.structs.replace(back, known_good=known_good, failure=failure, moves=moves)
    if state.candidate == stable and is_finished(state, stable):
        event = actor.event("failed", revision)
        failure = Failure(revision=revision, at=event.at, by=event.by, why=event.why)
        return Change(event=event, failure=failure)
    shares = {name: part for name, part in state.shares.items() if name != revision}
    if stable not in shares and revision not in state.shares:
        return Change(event=actor.event("failed", revision), in_progress=ended, moves=False)
    shares[stable] = shares.get(stable, 0) + state.shares.get(revision, 0)
    targets = traffic.plan(shares, traffic.tags(state.targets))
    return Change(
        event=actor.event("failed", revision, 0),
        targets=targets,
        in_progress=ended,
        moves=targets != state.targets,
    )


def hold(state: State, name: str, actor: Actor) -> Change:
    """Put the service on hold, or give its hold a new reason.

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
        hold=Hold(name=name, at=actor.at, by=actor.by, why=actor.why),
        moves=state.hold is None or actor.why not in ("", state.hold.why),
    )


def tag(state: State, revision: str, actor: Actor) -> Change:
    """Give a revision a tag, and with it a URL of its own; no traffic moves."""
    name = manifest.check_tag(revision, state.name)
    return Change(
        event=actor.event("tag", revision), targets=traffic.tag(state.targets, name, revision)
    )


def resume(state: State, actor: Actor) -> Change:
    """Release the hold, if there is one."""
    return Change(event=actor.event("resume"), hold=None, moves=state.hold is not None)


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
        annotations[KNOWN_GOOD] = memory.encode(change.known_good)
    for key, value in (
        (HOLD, change.hold),
        (IN_PROGRESS, change.in_progress),
        (FAILED, change.failure),
    ):
        if value is None:
            annotations.pop(key, None)
        elif value is not UNSET:
            annotations[key] = memory.encode(value)
    if change.event is not None:
        annotations[LOG] = memory.encode_log([*state.log, change.event])
    if change.targets is not None:
        drop_spent_tags(service, state.revisions)
    return service
