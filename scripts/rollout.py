"""Shift traffic to the candidate, step by step, and watch each step.

During each step and after it, the revision is smoke-checked again at its own URL. If a check fails,
one write moves its traffic back. Users' requests are not measured yet.
"""

from __future__ import annotations

from scripts.command.call import Call
from scripts.command.options import Bake, Override, WritingOptions
from scripts.release import changes
from scripts.service.context import Context
from scripts.service.regions import report
from scripts.service.rollout import rollout


class Options(WritingOptions, frozen=True, kw_only=True):
    bake: Bake = None
    override: Override = None


def run(options: Options, call: Call) -> int:
    context = Context(options, call, override=options.override)
    revision = changes.require_candidate(context.regions[0].state())
    context.confirm(f"Roll {revision} out to {context.where}.")
    done = rollout(context, revision, options.bake)
    return call.show(report(context, done, []), options.format)
