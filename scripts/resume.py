"""Release a service's hold: releases may give traffic again."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.core import options, release
from scripts.core.context import Context, Move, moved
from scripts.core.report import show


def arguments(parser: argparse.ArgumentParser) -> None:
    options.common(parser)
    options.writing(parser)


def run(arguments: argparse.Namespace, root: Path) -> int:
    context = Context(arguments, root)
    context.confirm(f"Release the hold of {context.where}.")
    moves = []
    for region in context.regions:
        was, now = region.change(release.resumed, context.actor())
        moves.append(Move(region=region.region, before=was, after=now))
    held = next((m.before.hold for m in moves if m.before.hold), None)
    show(
        moved(context, moves, [f"released: {held}" if held else "there was no hold"]),
        arguments.format,
    )
    return 0
