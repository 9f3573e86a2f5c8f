"""Give the candidate its next share of the traffic.

The share is the environment's next step, a percentage (--to 35), or all traffic (--all). The
revision is smoke-checked first, but not afterwards: watch it yourself.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from scripts.cloud.cloud_run import CloudRun
from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import Override, WritingOptions, option
from scripts.errors import Refused, ShipError
from scripts.release import changes
from scripts.release.changes import Change
from scripts.release.choices import choose_percent, refuse_held, require_candidate
from scripts.release.state import State, has_everything
from scripts.service.answered import Answered
from scripts.service.context import Context
from scripts.service.regions import (
    Acted,
    in_every_region,
    naming,
    read_every_region,
    report,
)
from scripts.service.rollout import conclude
from scripts.service.smoke import failure, refuse_moved, smoke
from scripts.service.watch import lines, show, weighed


class Options(WritingOptions, frozen=True, kw_only=True):
    takes_every: ClassVar[bool] = False

    override: Override = None
    to: Annotated[
        int | None,
        option(
            "--to",
            parse=values.percent,
            metavar="PERCENT",
            either="share",
            help="the new share (default: the environment's next step)",
        ),
    ] = None
    every: Annotated[
        bool,
        option(
            "--all",
            either="share",
            help="the same as --to 100 (not every service: name those that you mean)",
        ),
    ] = False
    although_worse: Annotated[
        bool,
        option("--although-worse", help="go on although it answers users worse than stable"),
    ] = False


def run(options: Options, call: Call) -> int:
    context = Context(options, call, override=options.override)
    steps = context.pipeline.environment.rollout.steps
    before = read_every_region(context, lambda region: region.state())
    states = [*before.values()]
    percent = choose_percent(states, steps, 100 if options.every else options.to)
    revision = require_candidate(states[0])
    for state in states:
        refuse_held(state, context.override)
    _show_evidence(context, before, revision, although_worse=options.although_worse)
    context.confirm(f"Promote {revision} to {percent} % in {context.where}.")
    checked = {}
    for region in context.regions:
        with naming(context, region):
            done = smoke(context, region, before[region.region], revision)
            if done.failed:
                raise failure(context, done)
        checked[region.region] = done

    def step(region: CloudRun) -> tuple[State, State]:
        def plan(state: State) -> Change:
            # A newer release also takes away this one's tag: first, the plan refuses.
            change = changes.step(
                state,
                revision,
                percent,
                context.actor(),
                verb="promote",
                override=context.override,
            )
            refuse_moved(state, checked[region.region])
            return change

        return region.change(plan, seen=before[region.region])

    acted = in_every_region(context, step, stop_at_failure=True)
    code = call.show(report(context, acted, _notes(context, acted, percent)), options.format)
    if not acted.errors:
        # Only now: until the result was printed, the same command takes no second step.
        conclude(context, {move.region: move.after for move in acted.moves}, revision)
    return code


def _show_evidence(
    context: Context, before: dict[str, State], revision: str, *, although_worse: bool
) -> None:
    """Show what users were answered so far, where the environment watches that.

    Raises:
        Refused: the revision is worse than stable, and the caller does not go on all the same.
    """
    rules = context.pipeline.environment.rollout.watch
    if rules is None:
        return
    stable = {region: state.beside(revision) for region, state in before.items()}
    try:
        found = weighed(context, Answered(context, rules), revision, before, stable)
    except ShipError as error:
        context.progress.line(f"note: users' answers are not seen: {error.message}")
        return
    if found is None:
        return
    shown = context.record.watched = show(context, found, revision, before, stable)
    for line in [*lines(shown), shown.said]:
        context.progress.line(line)
    if found.verdict.verdict == "worse" and not although_worse:
        raise Refused(
            f"{revision} answers its users worse than stable",
            f"To go back: ./ship rollback {context.where} - To go on all the same:"
            f" ./ship promote {context.where} --although-worse",
        )


def _notes(context: Context, acted: Acted, percent: int) -> list[str]:
    taken_up = [
        f"{move.region}: took up the {left}; it is checked and in force"
        for move in acted.moves
        if (left := move.before.left(move.before.candidate)) and left.to >= percent
    ]
    if acted.errors:
        return [*taken_up, f"To continue: ./ship promote {context.where}"]
    if all(has_everything(move.after, move.after.candidate or "") for move in acted.moves):
        return [*taken_up, f"done. To roll back: ./ship rollback {context.where}"]
    return [
        *taken_up,
        f"To continue: ./ship promote {context.where}."
        f" To roll back: ./ship rollback {context.where}",
    ]
