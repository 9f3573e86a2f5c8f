"""Shift traffic to the candidate, step by step, and watch each step.

During each step and after it, the revision is smoke-checked again at its own URL. With `watch` in
the environment's file, users' answers are compared with stable's. If a check fails or the answers
are worse, one write moves its traffic back.
"""

from __future__ import annotations

from scripts.command.call import Call
from scripts.command.options import Bake, Override, WritingOptions
from scripts.release.choices import revision_to_roll_out
from scripts.release.state import has_everything
from scripts.service.context import Context
from scripts.service.regions import naming, report
from scripts.service.rollout import rollout


class Options(WritingOptions, frozen=True, kw_only=True):
    bake: Bake = None
    override: Override = None


def run(options: Options, call: Call) -> int:
    context = Context(options, call, override=options.override)
    with naming(context, context.regions[0]):
        state = context.regions[0].state()
        revision = revision_to_roll_out(state)
    context.confirm(f"Roll {revision} out to {context.where}.")
    if state.failure:
        context.progress.line(f"tries the release that failed again: {state.failure}")
    done = rollout(context, revision, options.bake)
    notes = []
    if all(move.before is move.after for move in done.moves):
        notes.append(f"{revision} has all traffic already; nothing changed")
    elif not all(has_everything(move.after, revision) for move in done.moves):
        notes.append(
            f"the environment's steps end here. To continue: ./ship promote {context.where}"
        )
    return call.show(report(context, done, notes), options.format)
