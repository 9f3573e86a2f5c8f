"""Take a revision through the environment's rollout steps, in every region, and watch each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.command.progress import Step
from scripts.command.record import StepTaken
from scripts.command.words import split
from scripts.config.pipelines import needed, seconds
from scripts.errors import Failed, Refused, ShipError, bug
from scripts.ledger import may_have_written
from scripts.release import changes
from scripts.release.changes import Change, NotReady
from scripts.release.choices import StepsAside, refuse_displaced, refuse_held, step_aside
from scripts.release.state import State, condition, has_failed, is_finished, previous
from scripts.release.watch import Weighed
from scripts.service.aftermath import watch_on
from scripts.service.context import Context
from scripts.service.regions import (
    Acted,
    Move,
    Stables,
    in_every_region,
    naming,
    read_every_region,
    serving,
    without_stable,
)
from scripts.service.smoke import Smoked, check, failure, refuse_moved, smoke
from scripts.service.watch import Watcher, Worse, told

_LOOK_SECONDS = 1.0
_LOOKS_PER_CHECK = 3
_SLACK_SECONDS = 300.0  # that a step's own requests and checks may take


def rollout(
    context: Context, revision: str, bake: str | None, *, planned: dict[str, State] | None = None
) -> Acted:
    """Take a revision through the environment's steps, in every region.

    A dry run takes the same steps on the service as it would be after each write.

    Args:
        context: the call.
        revision: a Ready revision, tagged.
        bake: how long each step is watched, such as "5m"; None for the environment's.
        planned: in a dry run, the service in each region as it would be after a deploy.

    Returns:
        The service before the first step and after the last one, in each region.

    Raises:
        StepsAside: a newer commit serves or is being released.
        Refused: there is a hold, or another release took over. The steps that were made stay.
        Failed: a check failed; all traffic was moved back.
    """
    rules = context.pipeline.environment.rollout
    return _Rollout(context, revision, seconds(bake or rules.bake), planned).run()


def conclude(context: Context, states: dict[str, State], revision: str) -> None:
    """Note on the service that a revision's step has ended. A failure is no failure of the step.

    Args:
        context: the call.
        states: the service in each region, as last read.
        revision: the revision that the step was about.
    """
    if context.dry_run:
        return
    for region in context.regions:
        if region.region not in states:
            continue
        try:
            region.change(
                lambda state: changes.conclude(state, revision), seen=states[region.region]
            )
        except Exception as error:
            with suppress(Exception):  # such as no reader
                context.progress.line(
                    f"note: done in {region.region}, but it still shows as in progress: {error}"
                )


class _Rollout:
    """One rollout: what all its steps share."""

    def __init__(
        self, context: Context, revision: str, bake: float, planned: dict[str, State] | None
    ) -> None:
        self._context = context
        self._revision = revision
        self._bake = bake
        self._before: dict[str, State] = planned or {}
        self._now: dict[str, State] = {}
        self._checked: dict[str, Smoked] = {}
        self._watcher: Watcher | None = None
        self._looks = 0

    def run(self) -> Acted:
        context, revision = self._context, self._revision
        # What uses up the time for trouble must not keep the traffic from being moved back.
        context.google.patience.keep()
        self._before = self._before or read_every_region(
            context, lambda region: region.state([revision])
        )
        self._now = dict(self._before)
        self._watcher = _watcher(context, revision, self._bake)  # now, as it knows Google's clock
        before = self._before.values()
        for state in before:
            step_aside(state)
            refuse_held(state, context.override)
        if all(is_finished(state, revision) and state.in_force for state in before):
            return self._acted()
        current = max(state.shares.get(revision, 0) for state in before)
        steps = context.pipeline.environment.rollout.steps
        steps = [step for step in steps if step >= current] or [current]
        self._report_left()
        try:
            self._check()
            self._change(lambda state: changes.claim(state, revision, context.actor(), to=steps[0]))
            for percent in steps:
                self._step(percent)
                self._check()
            done = self._acted()
        except NotReady as error:
            if not any(state.shares.get(revision) for state in self._now.values()):
                raise
            raise self._moved_back(Failed(error.message, error.hint)) from error
        except (StepsAside, Refused):
            raise
        except ShipError as error:
            raise self._moved_back(error) from error.__cause__
        except Exception as error:
            # Move the traffic back after any error. Ctrl-C is not an Exception and leaves it.
            raise self._moved_back(bug(error)) from error
        if self._watcher and not context.dry_run:
            watch_on(
                context, self._watcher, revision, self._bake,
                self._now, self._stables(), self._look_again,
            )  # fmt: skip
        conclude(context, self._now, revision)
        return done

    def _acted(self) -> Acted:
        return Acted(
            done={
                region: Move(region=region, before=self._before[region], after=state)
                for region, state in self._now.items()
            }
        )

    def _report_left(self) -> None:
        """Report that this continues a rollout that was not seen to end."""
        for region, state in self._before.items():
            if left := state.left(self._revision):
                self._context.progress.line(f"{region}: takes up the {left}")

    def _change(self, plan: Callable[[State], Change]) -> None:
        """Make one change in every region; a failure in one leaves the later ones untouched."""
        dry_run = self._context.dry_run

        def change(region: CloudRun) -> tuple[State, State]:
            def planned(state: State) -> Change:
                # A newer release also takes away this one's tag: first, its plan steps aside.
                change = plan(state)
                refuse_moved(state, self._checked.get(region.region))
                return change

            return region.change(
                planned,
                revisions=[self._revision],
                seen=self._now[region.region] if dry_run else None,
            )

        acted = in_every_region(self._context, change, stop_at_failure=True)
        self._now.update({move.region: move.after for move in acted.moves})
        acted.check()

    def _step(self, percent: int) -> None:
        """Take one step in every region: move traffic, then watch."""
        context, revision = self._context, self._revision
        with context.progress.step("rollout", f"{revision} to {percent} %") as step:
            self._change(
                lambda state: changes.step(
                    state,
                    revision,
                    percent,
                    context.actor(),
                    verb="rollout",
                    override=self._context.override,
                    until=self._until(),
                )
            )
            live = serving(self._now)
            if context.dry_run:
                step.done(f"would serve {live}")
                return
            taken = StepTaken(
                percent=percent, shares=dict(next(iter(self._now.values())).shares), bake=self._bake
            )
            context.record.steps.append(taken)
            # At 100 % nothing is left to compare with: that is watched apart.
            apart = percent == 100 and self._watcher is not None
            found = None if apart else self._watch(step, live)
            taken.ended = True
            step.done(f"{live}{f'; {told(found)}' if found else ''}")

    def _until(self) -> str:
        """Return when a step that begins now is over at the latest, unless its watcher is gone."""
        rules = self._watcher.rules if self._watcher else None
        longer = max(seconds(rules.patience), seconds(rules.after)) if rules else 0.0
        return self._context.now(after=self._bake + longer + _SLACK_SECONDS)

    def _watch(self, step: Step, live: str) -> Weighed | None:
        """Wait for the bake time; notice a hold, a newer release, a failing check or revision.

        Where users' answers are watched, wait longer for enough of them.

        Returns:
            What was seen of users' answers; None where they are not watched.

        Raises:
            StepsAside: a newer commit is being released.
            Refused: there is a hold, another release took over, or too few answers were seen.
            Failed: a smoke check did not pass, the revision is not Ready any more, or it answers
                users worse than stable.
        """
        begun = time.monotonic()
        if self._bake:
            step.say(f"{live}, watched for {self._bake:g} s")
        while True:
            found = self._judge()
            left = begun + self._bake - time.monotonic()
            if left <= 0 and not self._waits(found, -left):
                return found
            time.sleep(min(left, _LOOK_SECONDS) if left > 0 else _LOOK_SECONDS)
            seen = f"; {told(found)}" if found else ""
            step.still(f"{live}, watched for {self._bake:g} s{seen}")
            self._look_again()

    def _judge(self) -> Weighed | None:
        """Judge by users' answers; None where they are not watched, or there is no stable."""
        if self._watcher is None:
            return None
        return self._watcher.look(self._now, self._stables())

    def _stables(self) -> Stables:
        return {region.region: self._stable(region.region) for region in self._context.regions}

    def _waits(self, found: Weighed | None, past: float) -> bool:
        """Return whether a step whose bake is over waits for more answers.

        Args:
            found: what was seen of users' answers.
            past: the seconds since the bake ended.

        Raises:
            Refused: too few answers were seen, and the rules say to stop.
        """
        if found is None or self._watcher is None or found.verdict.verdict != "unclear":
            return False
        rules = self._watcher.rules
        if rules.unclear == "go-on":
            return False
        if rules.unclear == "wait" and past < seconds(rules.patience):
            return True
        where = self._context.where
        raise Refused(
            f"unclear whether {self._revision} answers users worse than stable: {told(found)}",
            f"To wait for more: ./ship rollout {where} - To go on: ./ship promote {where}"
            f" - To go back: ./ship rollback {where}",
        )

    def _look_again(self) -> None:
        """Look at every region, and run the checks now and then."""
        self._looks += 1
        for region in self._context.regions:
            with naming(self._context, region):
                self._look(region, checks=self._looks % _LOOKS_PER_CHECK == 0)

    def _look(self, region: CloudRun, *, checks: bool) -> None:
        """Read a region during a bake; fail if the rollout must not go on there."""
        state = region.state([self._revision])
        self._now[region.region] = state
        step_aside(state)
        refuse_held(state, self._context.override)
        refuse_displaced(state, self._revision)
        self._refuse_broken(state)
        if checks:
            done = check(self._context, region, state, self._revision)
            self._asked(done)
            if done.failed:
                raise self._failed(region, done)

    def _failed(self, region: CloudRun, done: Smoked) -> Worse:
        """Make the error for checks that did not pass.

        Raises:
            StepsAside: a newer commit is being released, which may have taken away the tag.
        """
        with suppress(ShipError):  # what the checks found counts
            step_aside(region.state([self._revision]))
        failed = failure(self._context, done)
        return Worse(failed.message, failed.hint, service_says=failed.service_says)

    def _refuse_broken(self, state: State) -> None:
        """Fail where the revision is gone, or not Ready any more."""
        found = state.revisions.get(self._revision)
        if found is None and self._revision not in state.unknown:
            raise Worse(f"{self._revision} does not exist any more")
        if found is not None and has_failed(found):
            ready = condition(found)
            reason = ready.get("message") or ready.get("reason") or "no reason given"
            raise Worse(f"{self._revision} is not ready any more: {reason}")

    def _check(self) -> None:
        """Smoke-check the revision in every region."""
        if self._context.dry_run:
            return
        for region in self._context.regions:
            with naming(self._context, region):
                done = smoke(self._context, region, self._now[region.region], self._revision)
                self._asked(done)
                if done.failed:
                    raise self._failed(region, done)
            self._checked[region.region] = done

    def _asked(self, done: Smoked) -> None:
        if self._watcher:
            self._watcher.asked(done.region, len(done.outcomes))

    def _stable(self, region: str) -> str | None:
        """Return the revision that a failed release's traffic goes back to, or None."""
        before = self._before[region]
        stable = before.beside(self._revision)
        if stable is None and before.left(self._revision):
            # A rollout that is taken up at its last step has a revision before it.
            return previous(before)
        return stable

    def _moved_back(self, error: ShipError) -> ShipError:
        """Move the release's traffic back in every region; return the error that reports it."""
        context, revision = self._context, self._revision
        if not may_have_written(context.record.writes) and not any(
            state.shares.get(revision) for state in self._before.values()
        ):
            return error
        stables = self._stables()
        if not any(stables.values()):
            return _with(error, "there is no other revision to roll back to")
        actor = msgspec.structs.replace(context.actor(), why=error.message)
        context.google.patience.use_kept()

        def withdraw(region: CloudRun) -> tuple[State, State]:
            before = self._before[region.region]
            stable = stables[region.region]
            if stable is None:
                return before, before
            return region.change(
                lambda state: changes.withdraw(state, revision, stable, actor),
                revisions=[revision, stable],
            )

        try:
            acted = in_every_region(context, withdraw)
        except ShipError as second:
            return _stuck(context, error, second.message)
        for move in acted.moves:
            if move.before.shares != move.after.shares:
                live = split(move.after.shares)
                with suppress(Exception):  # such as no reader, which may be the error to report
                    context.progress.line(f"moved back: {move.region} serves {live}")
        if acted.errors:
            reasons = (f"{region}: {e.message}" for region, e in acted.errors.items())
            return _stuck(context, error, "; ".join(reasons))
        alone = without_stable(stables)
        return _with(error, alone) if alone else error


def _watcher(context: Context, revision: str, bake: float) -> Watcher | None:
    """Return what watches users' answers; None where they are not watched."""
    rules = context.pipeline.environment.rollout.watch
    if rules is None:
        return None
    if bake <= needed(rules):
        # The file's own bake is longer, so someone typed a shorter one.
        context.progress.line(
            f"note: users' answers are not watched: a bake of {bake:g} s ends before the first"
            " of them are seen"
        )
        return None
    return Watcher(context, rules, revision)


def _with(error: ShipError, more: str) -> Failed:
    return Failed(
        f"{error.message}; {more}",
        error.hint,
        evidence=error.evidence,
        service_says=error.service_says,
    )


def _stuck(context: Context, error: ShipError, reason: str) -> Failed:
    stuck = _with(error, f"and the traffic could not be moved back: {reason}")
    stuck.hint = f"./ship rollback {context.where}"
    return stuck
