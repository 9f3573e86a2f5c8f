"""Put a service on hold: nothing gets more traffic until `resume`."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.core import options, release
from scripts.core.context import Context, Move, moved
from scripts.core.report import show


def arguments(parser: argparse.ArgumentParser) -> None:
    options.common(parser)
    options.writing(parser)
    parser.add_argument("--name", default="hold", help="its name (default: %(default)s)")


def run(arguments: argparse.Namespace, root: Path) -> int:
    context = Context(arguments, root)
    context.confirm(f"Put {context.where} on hold.")
    moves = []
    for region in context.regions:
        was, now = region.change(release.held, arguments.name, context.actor())
        moves.append(Move(region=region.region, before=was, after=now))
    said = [f"on hold: {m.after.hold}" for m in moves[:1]]
    show(
        moved(context, moves, [*said, f"release it: ./ship resume {context.where}"]),
        arguments.format,
    )
    return 0
