"""Take all traffic back to the last known good revision, and put the service on hold.

Finds the revision by itself, or takes --to. One write, no build, no image pull. Until somebody
types `resume`, nothing gets more traffic.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.core import options, release, traffic
from scripts.core.cloudrun import CloudRun
from scripts.core.context import Context, Move, moved
from scripts.core.report import show
from scripts.core.state import State
from scripts.rollout import still
from scripts.smoke import failure, smoke


def arguments(parser: argparse.ArgumentParser) -> None:
    options.common(parser)
    options.writing(parser)
    parser.add_argument("--to", metavar="REVISION", help="default: the last known good one")
    parser.add_argument("--no-hold", action="store_true", help="do not put the service on hold")


def run(arguments: argparse.Namespace, root: Path) -> int:
    context = Context(arguments, root)
    wanted = [arguments.to] if arguments.to else []
    before = [region.state(*wanted) for region in context.regions]
    targets = [release.back_to(state, arguments.to) for state in before]
    context.confirm(f"Roll {context.where} back to {targets[0]}.")
    moves = []
    for region, state, target in zip(context.regions, before, targets, strict=True):
        _trusted(context, region, state, target)
        was, now = region.change(
            release.rollback,
            target,
            context.actor(),
            hold=not arguments.no_hold,
            verb="rollback",
        )
        moves.append(Move(region=region.region, before=was, after=now))
    hold = next((m.after.hold for m in moves if m.after.hold), None)
    said = [f"on hold: {hold.name}; release it: ./ship resume {context.where}"] if hold else []
    show(moved(context, moves, said), arguments.format)
    return 0


def _trusted(context: Context, region: CloudRun, state: State, target: str) -> None:
    """What has served well before is trusted; anything else is smoke-checked first (I4)."""
    if target in state.known_good or target in state.shares:
        return
    if target not in traffic.tags(state.targets).values():
        # Without a tag it has no URL to be checked at. A tag alone moves no traffic.
        _, state = region.change(release.tagged, target, context.actor())
        if context.dry_run:
            return
    done = smoke(context, region, state, target)
    if done.failed:
        raise still(failure(context, done), state, target)
