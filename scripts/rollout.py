"""Shift traffic to the candidate, step by step, and watch each step.

During each step and after it, the revision is smoke-checked again at its own URL. With `watch` in
the environment's file, users' answers are compared with stable's. If a check fails or the answers
are worse, one write moves its traffic back.

With --if-left, which is for a schedule, only a rollout whose watcher is gone is continued.
"""

from __future__ import annotations

from typing import Annotated

from scripts.command.call import Call
from scripts.command.options import Bake, Override, WritingOptions, option
from scripts.release.choices import revision_to_roll_out
from scripts.release.state import has_everything
from scripts.service.context import Context
from scripts.service.regions import Acted, Move, naming, read_every_region, report
from scripts.service.rollout import rollout


class Options(WritingOptions, frozen=True, kw_only=True):
    bake: Bake = None
    override: Override = None
    if_left: Annotated[
        bool,
        option("--if-left", help="continue a rollout that no one watches; otherwise do nothing"),
    ] = False


def run(options: Options, call: Call) -> int:
    context = Context(options, call, override=options.override)
    if options.if_left:
        unchanged, reason = _without_a_watcher(context)
        if reason:
            context.progress.line(reason)
            return call.show(report(context, unchanged, [], reason), options.format)
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


def _without_a_watcher(context: Context) -> tuple[Acted, str]:
    """Read every region; return also why no rollout is to be continued, or "" if one is."""
    read = read_every_region(context, lambda region: region.read())
    states = {region: state for region, state in read.items() if state}
    left = [step for state in states.values() if (step := state.unwatched(context.now()))]
    holds = [state.hold for state in states.values() if state.hold]
    reason = ""
    if not left:
        reason = "no rollout has lost its watcher; nothing changed"
    elif holds:
        reason = f"not continued, because of the hold {holds[0]}"
    elif any(state.candidate != left[0].revision for state in states.values()):
        reason = f"not continued: {left[0].revision} is no longer the candidate everywhere"
    moves = {r: Move(region=r, before=state, after=state) for r, state in states.items()}
    return Acted(done=moves), reason
