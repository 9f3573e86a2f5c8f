"""Release a service's hold: releases may give traffic again."""

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


def run(arguments: argparse.Namespace, root: Path) -> int:
    context = Context(arguments, root)
    context.confirm(f"Release the hold of {context.where}.")
    moves, errors = in_every_region(
        context, lambda region: region.change(changes.resumed, context.actor())
    )
    held = next((move.before.hold for move in moves if move.before.hold), None)
    said = [f"released: {held}" if held else "there was no hold"]
    return show(moved(context, moves, said, errors), arguments.format)
