"""Take a revision through the environment's rollout steps, in every region, and watch each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from scripts.cloud.cloud_run import CloudRun
from scripts.command.progress import Step
from scripts.command.record import StepTaken
from scripts.command.words import split
from scripts.config.pipelines import seconds
from scripts.errors import Failed, Refused, ShipError, UsageError, bug
from scripts.release import changes
from scripts.release.changes import Change, StepsAside
from scripts.release.state import State, is_finished
from scripts.service.context import Context
from scripts.service.regions import Acted, Move, in_every_region, serving, unchanged
from scripts.service.smoke import check, failure, smoke

_LOOK_SECONDS = 1.0
_LOOKS_PER_CHECK = 3


def rollout(context: Context, revision: str, bake: str | None) -> Acted:
    """Take a revision through the environment's steps, in every region.

    Args:
        context: the call.
        revision: a Ready revision, tagged.
        bake: how long each step is watched, such as "5m"; None for the environment's.

    Returns:
        The service before the first step and after the last one, in each region.

    Raises:
        StepsAside: a newer commit serves or is being released; traffic is unchanged.
        Refused: there is a hold, or another release took over; traffic is unchanged.
        Failed: a check failed; all traffic was moved back.
    """
    rules = context.pipeline.environment.rollout
    return _Rollout(context, revision, seconds(bake or rules.bake)).run()


class _Rollout:
    """One rollout: what all its steps share."""

    def __init__(self, context: Context, revision: str, bake: float) -> None:
        self._context = context
        self._revision = revision
        self._bake = bake
        self._before: dict[str, State] = {}

    def run(self) -> Acted:
        context, revision = self._context, self._revision
        self._before = self._states()
        before = self._before.values()
        for state in before:
            changes.step_aside(state)
            changes.refuse_held(state, self._context.override)
        if all(is_finished(state, revision) for state in before):
            return self._acted(self._before)
        current = max(state.shares.get(revision, 0) for state in before)
        steps = context.pipeline.environment.rollout.steps
        try:
            self._check(self._before)
            self._change(lambda state: changes.claim(state, revision, context.actor()))
            for percent in [step for step in steps if step >= current] or [current]:
                self._step(percent)
                after = self._states()
                self._check(after)
        except Refused as refusal:
            try:
                live = serving(self._states())
            except Exception:
                raise refusal from None  # the refusal counts, even if the traffic cannot be read
            raise Refused(f"{refusal.message}; live now: {live}", refusal.hint) from None
        except StepsAside:
            raise
        except ShipError as error:
            raise self._moved_back(error) from error.__cause__
        except Exception as error:
            # Move the traffic back after any error. Ctrl-C is not an Exception and leaves it.
            raise self._moved_back(bug(error)) from error
        return self._acted(after)

    def _states(self) -> dict[str, State]:
        return {r.region: r.state([self._revision]) for r in self._context.regions}

    def _acted(self, after: dict[str, State]) -> Acted:
        return Acted(
            done={
                region: Move(region=region, before=self._before[region], after=state)
                for region, state in after.items()
            }
        )

    def _change(self, plan: Callable[[State], Change]) -> dict[str, State]:
        """Make one change in every region; a failure in one leaves the later ones untouched."""
        acted = in_every_region(
            self._context,
            lambda region: region.change(plan, revisions=[self._revision]),
            stop_at_failure=True,
        )
        acted.check()
        return {move.region: move.after for move in acted.moves}

    def _step(self, percent: int) -> None:
        """Take one step in every region: move traffic, then watch."""
        context, revision = self._context, self._revision
        with context.progress.step("rollout", f"{revision} to {percent} %") as step:
            after = self._change(
                lambda state: changes.step(
                    state,
                    revision,
                    percent,
                    context.actor(),
                    verb="rollout",
                    override=self._context.override,
                )
            )
            live = serving(after)
            if context.dry_run:
                step.done(f"would serve {live}")
                return
            taken = StepTaken(
                percent=percent, shares=dict(next(iter(after.values())).shares), bake=self._bake
            )
            context.record.steps.append(taken)
            self._watch(step, live)
            taken.ended = True
            step.done(live)

    def _watch(self, step: Step, live: str) -> None:
        """Wait for the bake time; notice a hold, a newer release, or a check that fails.

        Raises:
            StepsAside: a newer commit is being released.
            Refused: there is a hold, or another release took over.
            Failed: a smoke check did not pass.
        """
        deadline = time.monotonic() + self._bake
        if self._bake:
            step.say(f"{live}, watched for {self._bake:g} s")
        looks = 0
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))
            looks += 1
            for region in self._context.regions:
                state = region.state([self._revision])
                changes.step_aside(state)
                changes.refuse_held(state, self._context.override)
                changes.refuse_displaced(state, self._revision)
                if looks % _LOOKS_PER_CHECK == 0:
                    done = check(self._context, region, state, self._revision)
                    if done.failed:
                        raise failure(self._context, done)

    def _check(self, states: dict[str, State]) -> None:
        """Smoke-check the revision in every region."""
        if self._context.dry_run:
            return
        for region in self._context.regions:
            done = smoke(self._context, region, states[region.region], self._revision)
            if done.failed:
                raise failure(self._context, done)

    def _moved_back(self, error: ShipError) -> ShipError:
        """Move the release's traffic back in every region; return the error that reports it."""
        context, revision = self._context, self._revision

        def withdraw(region: CloudRun) -> tuple[State, State]:
            before = self._before[region.region]
            stable = before.stable
            if stable is None or stable == revision:
                return before, before
            return region.change(
                lambda state: changes.withdraw(state, revision, stable, context.actor()),
                revisions=[revision, stable],
            )

        try:
            acted = in_every_region(context, withdraw)
        except ShipError as second:
            return _stuck(context, error, second.message)
        moved = [move for move in acted.moves if move.before is not move.after]
        for move in moved:
            live = split(move.after.shares)
            with suppress(Exception):  # such as no reader, which may be the error to report
                context.progress.line(f"moved back: {move.region} serves {live}")
        if acted.errors:
            reasons = (f"{region}: {e.message}" for region, e in acted.errors.items())
            return _stuck(context, error, "; ".join(reasons))
        if not moved and isinstance(error, UsageError):
            return error  # only reads were sent
        states = {move.region: move.after for move in acted.moves}
        return unchanged(error, states, revision, moved_back=bool(moved))


def _stuck(context: Context, error: ShipError, reason: str) -> Failed:
    return Failed(
        f"{error.message}; and the traffic could not be moved back: {reason}",
        f"./ship rollback {context.where}",
        evidence=error.evidence,
        service_says=error.service_says,
    )
