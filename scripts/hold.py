"""Put a service on hold: nothing gets more traffic until `resume`."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.command import options
from scripts.command.terminal import show
from scripts.release import changes
from scripts.service.context import Context, in_every_region, moved


def arguments(parser: argparse.ArgumentParser) -> None:
    options.common(parser)
    options.writing(parser)
    parser.add_argument(
        "--name", type=options.hold_name, default="hold", help="its name (default: %(default)s)"
    )


def run(arguments: argparse.Namespace, root: Path) -> int:
    context = Context(arguments, root)
    context.confirm(f"Put {context.where} on hold.")
    moves, errors = in_every_region(
        context, lambda region: region.change(changes.held, arguments.name, context.actor())
    )
    said = [f"on hold: {moves[0].after.hold}", f"release it: ./ship resume {context.where}"]
    return show(moved(context, moves, said, errors), arguments.format)
