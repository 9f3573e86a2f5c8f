"""Release a service's hold: traffic may increase again."""

from __future__ import annotations

from scripts.command.call import Call
from scripts.command.options import WritingOptions
from scripts.release import changes
from scripts.service.context import Context
from scripts.service.regions import in_every_region, report


class Options(WritingOptions, frozen=True, kw_only=True):
    pass


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    context.confirm(f"Release the hold of {context.where}.")
    acted = in_every_region(
        context,
        lambda region: region.change(lambda state: changes.resume(state, context.actor())),
    )
    hold = next((move.before.hold for move in acted.moves if move.before.hold), None)
    notes = [f"released: {hold}" if hold else "there was no hold"]
    return call.show(report(context, acted, notes), options.format)
