"""Shift traffic to the release that is under way, step by step, watching each step.

While a step is watched, and after it, the revision is smoke-checked again at its own URL; a failure
takes its traffic away in one write. What users are answered is not measured yet.
"""

from __future__ import annotations

import time

from scripts.command.call import Call
from scripts.command.options import Bake, Override, WritingOptions
from scripts.command.progress import Step
from scripts.command.record import StepTaken
from scripts.command.words import split
from scripts.config.pipelines import seconds
from scripts.errors import Failed, Refused, ShipError, UsageError
from scripts.release import changes
from scripts.release.changes import Newer
from scripts.release.state import State, finished
from scripts.release.traffic import Shares
from scripts.service.context import Context, Move, moved
from scripts.smoke import candidate, check, failure, smoke

_LOOK_SECONDS = 1.0
_LOOKS_PER_CHECK = 3


class Options(WritingOptions, frozen=True, kw_only=True):
    bake: Bake = None
    override: Override = None


def run(options: Options, call: Call) -> int:
    context = Context(options, call, override=options.override)
    revision = candidate(context.regions[0].state())
    context.confirm(f"Roll {revision} out to {context.where}.")
    done = rollout(context, revision, options.bake)
    return call.show(moved(context, done, []), options.format)


def rollout(
    context: Context, revision: str, bake_time: str | None, newer: Newer = lambda _: False
) -> list[Move]:
    """Take a revision through the environment's steps, in every region.

    Args:
        context: the call.
        revision: a Ready revision, tagged.
        bake_time: how long each step is watched; None for the environment's.
        newer: the commits that it steps aside for; none unless given.

    Returns:
        Before the first step and after the last one, per region.

    Raises:
        StepsAside: a newer commit serves, or is under way; the traffic stays as it is.
        Failed: a check failed; everything was moved back.
        Refused: a hold is on, or another release took over; the traffic stays as it is.
    """
    rules = context.pipeline.environment.rollout
    bake = seconds(bake_time or rules.bake)
    before = [region.state() for region in context.regions]
    for state in before:
        changes.step_aside(state, newer)
        changes.refuse_held(state, context.override)
    if all(finished(state, revision) for state in before):
        return [
            Move(region=r.region, before=s, after=s)
            for r, s in zip(context.regions, before, strict=True)
        ]
    current = max(state.shares.get(revision, 0) for state in before)
    steps = [step for step in rules.steps if step >= current] or [current]
    try:
        _check(context, revision)
        for region in context.regions:
            region.change(changes.claim, revision, context.actor(), newer=newer)
        for percent in steps:
            _step(context, revision, percent, bake, newer)
            _check(context, revision)
    except Refused as refusal:
        shares = split(context.regions[0].state().shares)
        raise Refused(f"{refusal.message}; the traffic stays: {shares}", refusal.hint) from None
    except ShipError as error:
        raise _back(context, revision, before, error) from None
    return [
        Move(region=region.region, before=state, after=region.state())
        for region, state in zip(context.regions, before, strict=True)
    ]


def _step(context: Context, revision: str, percent: int, bake: float, newer: Newer) -> None:
    """One step in every region: move, watch, check again."""
    with context.progress.step("rollout", f"{revision} to {percent} %") as step:
        for region in context.regions:
            _, after = region.change(
                changes.step,
                revision,
                percent,
                context.actor(),
                verb="rollout",
                override=context.override,
                newer=newer,
            )
        if context.dry_run:
            step.done(f"would serve {split(after.shares)}")
            return
        taken = StepTaken(percent=percent, shares=dict(after.shares), bake=bake)
        context.record.steps.append(taken)
        _watch(context, step, revision, split(after.shares), bake, newer)
        taken.ended = True
        step.done(split(after.shares))


def _watch(
    context: Context, step: Step, revision: str, what: str, bake: float, newer: Newer
) -> None:
    """Wait, and meanwhile look: for a hold, a newer release, a check that no longer passes.

    Raises:
        StepsAside: a newer commit is under way.
        Refused: a hold is on, or another release took over.
        Failed: a smoke check did not pass.
    """
    deadline = time.monotonic() + bake
    if bake:
        step.say(f"{what}, watched for {bake:g} s")
    looks = 0
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
        looks += 1
        for region in context.regions:
            state = region.state()
            changes.step_aside(state, newer)
            changes.refuse_held(state, context.override)
            changes.refuse_displaced(state, revision)
            if looks % _LOOKS_PER_CHECK == 0:
                done = check(context, region, state, revision)
                if done.failed:
                    raise failure(context, done)


def _check(context: Context, revision: str) -> None:
    if context.dry_run:
        return
    for region in context.regions:
        done = smoke(context, region, region.state(), revision)
        if done.failed:
            raise failure(context, done)


def _back(context: Context, revision: str, before: list[State], error: ShipError) -> ShipError:
    """Take the release's traffic away again in every region, and say so."""
    shares = before[0].shares
    moved_back = False
    for region, earlier in zip(context.regions, before, strict=True):
        stable = earlier.stable
        if stable is None or stable == revision:
            continue
        try:
            was, now = region.change(changes.withdraw, revision, stable, context.actor())
        except ShipError as second:
            return Failed(
                f"{error.message}; and the traffic could not be moved back: {second.message}",
                f"./ship rollback {context.where}",
                evidence=error.evidence,
                service_says=error.service_says,
            )
        shares = now.shares
        if was is not now:
            moved_back = True
            context.progress.line(f"moved back: {region.region} serves {split(shares)}")
    if not moved_back and isinstance(error, UsageError):
        return error  # nothing was sent but reads
    return still(error, shares, revision)


def still(error: ShipError, shares: Shares, revision: str) -> Failed:
    """The same failure, saying what the service serves now: what it did before (I5).

    A first revision serves from its start: there is nothing else that could.
    """
    if shares == {revision: 100}:
        serves = f"{revision} serves all the same: there is no other revision to go back to"
    else:
        serves = f"the service serves what it did before: {split(shares)}"
    return Failed(
        f"{error.message}; {serves}",
        error.hint,
        evidence=error.evidence,
        service_says=error.service_says,
    )
