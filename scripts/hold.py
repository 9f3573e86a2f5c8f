"""Put a service on hold: nothing gets more traffic until `resume`."""

from __future__ import annotations

from typing import Annotated

from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import WritingOptions, option
from scripts.release import changes
from scripts.service.context import Context, in_every_region, moved


class Options(WritingOptions, frozen=True, kw_only=True):
    name: Annotated[
        str,
        option("--name", parse=values.hold_name, help="the hold's name (default: %(default)s)"),
    ] = "hold"


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    context.confirm(f"Put {context.where} on hold.")
    moves, errors = in_every_region(
        context, lambda region: region.change(changes.held, options.name, context.actor())
    )
    said = [f"on hold: {moves[0].after.hold}", f"release it: ./ship resume {context.where}"]
    return call.show(moved(context, moves, said, errors), options.format)
