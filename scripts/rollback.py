"""Move all traffic to the last known good revision, and put the service on hold.

--to chooses another revision. One write, no build, no image pull. Traffic cannot increase again
until someone releases the hold with `resume`.
"""

from __future__ import annotations

from typing import Annotated

from scripts.cloud.cloud_run import CloudRun
from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import WritingOptions, option
from scripts.release import changes
from scripts.release.changes import Change
from scripts.release.choices import choose_target
from scripts.release.state import State
from scripts.service.context import Context
from scripts.service.regions import in_every_region, report
from scripts.service.smoke import Smoked, failure, refuse_moved, smoke


class Options(WritingOptions, frozen=True, kw_only=True):
    to: Annotated[
        str | None,
        option(
            "--to",
            parse=values.text_or_none,
            metavar="REVISION",
            help="default: the last known good revision",
        ),
    ] = None
    no_hold: Annotated[bool, option("--no-hold", help="do not put the service on hold")] = False


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    context.confirm(f"Roll {context.where} back to {options.to or 'the last known good revision'}.")
    acted = in_every_region(context, lambda region: _roll_back(context, region, options))
    hold = next((move.after.hold for move in acted.moves if move.after.hold), None)
    notes = [f"on hold: {hold}. To release it: ./ship resume {context.where}"] if hold else []
    if not acted.errors and all(move.before is move.after for move in acted.moves):
        further = f"./ship history {context.where} lists the revisions"
        notes.insert(
            0,
            f"already rolled back; nothing changed. To go further back: --to REVISION; {further}",
        )
    return call.show(report(context, acted, notes), options.format)


def _roll_back(context: Context, region: CloudRun, options: Options) -> tuple[State, State]:
    """Roll one region back; return the service before and after.

    Raises:
        Failed: the revision that was asked for did not pass its smoke checks.
        Refused: there is nothing to roll back to.
    """
    wanted = [options.to] if options.to else []
    state = region.state(wanted)
    target = choose_target(state, options.to)
    checked = None
    if not state.trusts(target):
        state, checked = _check(context, region, state, target)

    def plan(state: State) -> Change:
        refuse_moved(state, checked)
        return changes.roll_back(
            state, target, context.actor(), hold=not options.no_hold, verb="rollback"
        )

    return region.change(plan, revisions=wanted, seen=state)


def _check(
    context: Context, region: CloudRun, state: State, target: str
) -> tuple[State, Smoked | None]:
    """Smoke-check a revision that is not known to be good (I4).

    Returns:
        The service as last read, and the checks; in a dry run none if there is no tag to check.
    """
    if state.tag_of(target) is None:
        # Without a tag it has no URL to check. A tag alone moves no traffic.
        _, state = region.change(
            lambda state: changes.tag(state, target, context.actor()),
            revisions=[target],
            seen=state,
        )
        if context.dry_run:
            return state, None
    done = smoke(context, region, state, target)
    if done.failed:
        raise failure(context, done)
    return state, done
