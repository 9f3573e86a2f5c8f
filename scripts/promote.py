"""Give the release that is under way its next share of the traffic.

To the environment's next step, to a percentage (--to 35), or all the way (--all). The revision is
smoke-checked first. Nothing is watched afterwards: that is yours.
"""

from __future__ import annotations

from typing import Annotated

from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import Override, WritingOptions, option
from scripts.release import changes
from scripts.release.state import finished
from scripts.rollout import still
from scripts.service.context import Context, Move, moved
from scripts.smoke import candidate, failure, smoke


class Options(WritingOptions, frozen=True, kw_only=True):
    override: Override = None
    to: Annotated[
        int | None,
        option(
            "--to",
            parse=values.percent,
            metavar="PERCENT",
            either="share",
            help="the new share (default: the environment's next step)",
        ),
    ] = None
    all: Annotated[bool, option("--all", either="share", help="the same as --to 100")] = False


def run(options: Options, call: Call) -> int:
    context = Context(options, call, override=options.override)
    to = 100 if options.all else options.to
    steps = context.pipeline.environment.rollout.steps
    before = [region.state() for region in context.regions]
    percents = [changes.next_percent(state, steps, to) for state in before]
    revision = candidate(before[0])
    for state in before:
        changes.refuse_held(state, context.override)
    context.confirm(f"Promote {revision} to {percents[0]} % in {context.where}.")
    for region, state in zip(context.regions, before, strict=True):
        done = smoke(context, region, state, revision)
        if done.failed:
            raise still(failure(context, done), state.shares, revision)
    moves = []
    for region, percent in zip(context.regions, percents, strict=True):
        was, now = region.change(
            changes.step,
            revision,
            percent,
            context.actor(),
            verb="promote",
            override=context.override,
        )
        moves.append(Move(region=region.region, before=was, after=now))
    return call.show(moved(context, moves, _said(context, moves)), options.format)


def _said(context: Context, moves: list[Move]) -> list[str]:
    if all(finished(m.after, m.after.candidate or "") for m in moves):
        return [f"done; to go back: ./ship rollback {context.where}"]
    return [f"further: ./ship promote {context.where}; back: ./ship rollback {context.where}"]
