"""Put a service on hold: traffic cannot increase until `resume`.

A second `hold` of the same name changes the reason.
"""

from __future__ import annotations

from typing import Annotated

from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import WritingOptions, option
from scripts.release import changes
from scripts.service.context import Context
from scripts.service.regions import in_every_region, report


class Options(WritingOptions, frozen=True, kw_only=True):
    name: Annotated[
        str,
        option("--name", parse=values.hold_name, help="the hold's name (default: %(default)s)"),
    ] = "hold"


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    context.confirm(f"Put {context.where} on hold.")
    acted = in_every_region(
        context,
        lambda region: region.change(
            lambda state: changes.hold(state, options.name, context.actor())
        ),
    )
    hold = acted.moves[0].after.hold
    new = any(move.before is not move.after for move in acted.moves)
    notes = [
        f"{'on hold' if new else 'already on hold; nothing changed'}: {hold}",
        f"To release it: ./ship resume {context.where}",
    ]
    return call.show(report(context, acted, notes), options.format)
