"""Release a service's hold: releases may give traffic again."""

from __future__ import annotations

from scripts.command.call import Call
from scripts.command.options import WritingOptions
from scripts.release import changes
from scripts.service.context import Context, in_every_region, moved


class Options(WritingOptions, frozen=True, kw_only=True):
    pass


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    context.confirm(f"Release the hold of {context.where}.")
    moves, errors = in_every_region(
        context, lambda region: region.change(changes.resumed, context.actor())
    )
    held = next((move.before.hold for move in moves if move.before.hold), None)
    said = [f"released: {held}" if held else "there was no hold"]
    return call.show(moved(context, moves, said, errors), options.format)
