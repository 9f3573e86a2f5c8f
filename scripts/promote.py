"""Give the release that is under way its next share of the traffic.

To the environment's next step, to a percentage (--to 35), or all the way (--all). The revision is
smoke-checked first. Nothing is watched afterwards: that is yours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.command import options
from scripts.command.terminal import show
from scripts.release import changes
from scripts.release.state import finished
from scripts.rollout import still
from scripts.service.context import Context, Move, moved
from scripts.smoke import candidate, failure, smoke


def arguments(parser: argparse.ArgumentParser) -> None:
    options.common(parser)
    options.writing(parser)
    options.override(parser)
    how_far = parser.add_mutually_exclusive_group()
    how_far.add_argument("--to", type=options.percent, metavar="PERCENT", help="to this share")
    how_far.add_argument("--all", dest="to", action="store_const", const=100, help="all the way")


def run(arguments: argparse.Namespace, root: Path) -> int:
    context = Context(arguments, root)
    steps = context.pipeline.environment.rollout.steps
    before = [region.state() for region in context.regions]
    percents = [changes.next_percent(state, steps, arguments.to) for state in before]
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
    return show(moved(context, moves, _said(context, moves)), arguments.format)


def _said(context: Context, moves: list[Move]) -> list[str]:
    if all(finished(m.after, m.after.candidate or "") for m in moves):
        return [f"done; to go back: ./ship rollback {context.where}"]
    return [f"further: ./ship promote {context.where}; back: ./ship rollback {context.where}"]
