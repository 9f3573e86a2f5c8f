"""Take all traffic back to the last known good revision, and put the service on hold.

Finds the revision by itself, or takes --to. One write, no build, no image pull. Until somebody
types `resume`, nothing gets more traffic.
"""

from __future__ import annotations

from typing import Annotated

from scripts.cloud.cloud_run import CloudRun
from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import WritingOptions, option
from scripts.release import changes, traffic
from scripts.release.state import State
from scripts.rollout import still
from scripts.service.context import Context, in_every_region, moved
from scripts.smoke import failure, smoke


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
    moves, errors = in_every_region(context, lambda region: rollback(context, region, options))
    hold = next((move.after.hold for move in moves if move.after.hold), None)
    said = [f"on hold: {hold}; release it: ./ship resume {context.where}"] if hold else []
    if all(move.before is move.after for move in moves):
        further = "--to REVISION goes further; ./ship history lists them"
        said.insert(0, f"it was so already: nothing was changed. {further}")
    return call.show(moved(context, moves, said, errors), options.format)


def rollback(context: Context, region: CloudRun, options: Options) -> tuple[State, State]:
    """Roll one region back.

    Returns:
        The service before and after.

    Raises:
        Failed: the revision that was asked for did not pass its smoke checks.
        Refused: there is nothing to roll back to.
    """
    state = region.state(*([options.to] if options.to else []))
    target = changes.back_to(state, options.to)
    if not state.trusts(target):
        _check(context, region, state, target)
    return region.change(
        changes.rollback,
        target,
        context.actor(),
        hold=not options.no_hold,
        verb="rollback",
    )


def _check(context: Context, region: CloudRun, state: State, target: str) -> None:
    """What has not proved itself is smoke-checked first (I4)."""
    if target not in traffic.tags(state.targets).values():
        # Without a tag it has no URL to be checked at. A tag alone moves no traffic.
        _, state = region.change(changes.tagged, target, context.actor())
        if context.dry_run:
            return
    done = smoke(context, region, state, target)
    if done.failed:
        raise still(failure(context, done), state.shares, target)
