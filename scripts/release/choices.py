"""What a command may do, and what it does unless it is told: its revision and its share. Pure."""

from __future__ import annotations

from scripts.errors import NothingToDo, Refused, UsageError
from scripts.release.state import State, is_finished, left_deploy, previous


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


def revision_to_roll_out(state: State) -> str:
    """Return the revision that `rollout` takes through the steps.

    It is the candidate. After a release that failed, it is the revision that failed: it has no
    traffic any more, and the same command tries again from the smoke checks.

    Raises:
        Refused: there is none; or the revision that failed is not Ready any more; or a later one
            was deployed and not released.
    """
    failed = state.failure
    if failed is None:
        candidate = require_candidate(state)
        deploy = left_deploy(state)
        if deploy and is_finished(state, candidate):
            started = "is not released" if deploy.revision in state.ready else "did not start"
            raise Refused(
                f"{candidate} has all traffic; the last release, of {deploy.revision}, {started}",
                f"To see what is live: ./ship status {state.where}",
            )
        return candidate
    if failed.revision not in state.ready:
        raise Refused(
            f"the last release failed, and its revision is not ready: {failed}",
            f"Fix it and commit. To see what is live: ./ship status {state.where}",
        )
    return failed.revision


def choose_percent(states: list[State], steps: list[int], to: int | None) -> int:
    """Choose the share that `promote` goes to.

    Where an earlier `promote` failed in some regions, those that are behind catch up first. Where
    one began and was not seen to end, its step is checked and concluded before another one begins.
    Where someone else has changed the candidate's share, there is no next step.

    Args:
        states: the service as read, in each region.
        steps: the environment's steps.
        to: the share that was asked for; None for the next step.

    Raises:
        NothingToDo: there is nothing to promote in any region.
        Refused: the last release failed, or there is no next step.
        UsageError: `to` would take traffic away.
    """
    first = states[0]
    current = [
        state.shares.get(state.candidate, 0)
        for state in states
        if state.candidate is not None and not is_finished(state, state.candidate)
    ]
    if not current:
        failed = next((state.failure for state in states if state.failure), None)
        if failed:
            raise Refused(
                f"nothing to promote: the last release failed and has no traffic: {failed}",
                f"To try it again: ./ship rollout {first.where}",
            )
        has_all = f"{first.candidate} has all traffic" if first.candidate else ""
        raise NothingToDo(
            f"nothing to promote: {has_all or f'no release of {first.name} is in progress'}",
            f"To start one: ./ship deliver {first.where}",
        )
    if to is None:
        for state in states:
            _refuse_edited(state)
        left = [step.to for state in states if (step := state.left(state.candidate, "promote"))]
        return max(left, default=next((step for step in steps if step > min(current)), 100))
    if to < max(current):
        raise UsageError(
            f"--to {to}: {first.candidate} already has {max(current)} %,"
            " and promote never takes traffic away",
            f"To take traffic away: ./ship rollback {first.where}",
        )
    return to


def _refuse_edited(state: State) -> None:
    """Refuse to choose a step for a candidate whose share is not the one that Shipway gave it.

    Raises:
        Refused: someone else has changed it.
    """
    candidate = state.candidate
    if candidate is None or is_finished(state, candidate) or state.was_given(candidate):
        return
    raise Refused(
        f"{candidate} has {state.shares.get(candidate, 0)} % of the traffic, which Shipway did not"
        " give it: someone else changed it, so there is no next step",
        f"To choose a share: ./ship promote {state.where} --to PERCENT",
    )


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
