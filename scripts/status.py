"""Show which revisions are live, with commit and image, any hold, and the next command.

--watch keeps it up to date until Ctrl-C. For several services, show a grid instead: a row for each
service, a column for each environment.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

from scripts.command import terminal
from scripts.command.call import Call
from scripts.command.options import ServiceOptions, option
from scripts.command.record import Watched
from scripts.command.results import Result
from scripts.command.tables import Table, plain_table, rich_table
from scripts.command.visible import one_line
from scripts.command.words import ago
from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.errors import ShipError
from scripts.release import traffic
from scripts.release.manifest import Object, commit_of, image_of
from scripts.release.memory import to_builtins
from scripts.release.state import State, describe, has_failed, is_finished, left_deploy, previous
from scripts.service.answered import Answered
from scripts.service.context import Context
from scripts.service.regions import try_in_every_region
from scripts.service.watch import lines, show, weighed
from scripts.several import chosen, grid, summary

_EVERY_SECONDS = 1.0


class Options(ServiceOptions, frozen=True, kw_only=True):
    watch: Annotated[bool, option("--watch", help="refresh the table until Ctrl-C")] = False
    env: Annotated[
        str, option("--env", help="environment (default: local; of several services: every one)")
    ] = ""


def several(options: Options, call: Call) -> int | None:
    """Show several services in a grid; None if the command line means one."""
    if options.watch or not (options.every or len(options.services) > 1):
        return None
    if options.every and not options.services and not options.env:
        names = pipelines.services(call.root)
    else:
        names = chosen.named(options, call.root)
    found = grid.read(call, names, options.env, options.timeout)
    errors = grid.errors(found)
    data = {
        name: _document(cells[options.env], name, options.env)
        if options.env
        else {"environments": {env: _document(cells[env], name, env) for env in cells}}
        for name, cells in found.cells.items()
    }
    result = Result(
        data={"services": data, "errors": errors},
        table=grid.table(found),
        code=1 if errors else 0,
    )
    code = call.show(result, options.format)
    if errors:
        summary.last_line(f"not everything could be read: {len(errors)} of the cells above")
    return code


def _document(cell: grid.Cell, name: str, env: str) -> dict[str, Any]:
    """Return the document of one service in one environment."""
    found = {"": cell.error, **cell.regions}
    return {
        "service": name,
        "environment": env,
        "regions": [
            _described(region, state)
            for region, state in cell.regions.items()
            if not isinstance(state, ShipError)
        ],
        "errors": [
            f"{region}: {error.message}" if region else error.message
            for region, error in found.items()
            if isinstance(error, ShipError)
        ],
    }


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    if options.watch:
        return _watch(context)
    return call.show(status(context), options.format)


def status(context: Context) -> Result:
    """Read every region; make one row for each revision that matters now."""
    rows: list[list[str]] = []
    notes: list[str] = []
    data: list[dict[str, Any]] = []
    tried = try_in_every_region(context, lambda region: region.read())
    for region in context.regions:
        if region.region not in tried.done:
            continue
        state = tried.done[region.region]
        if state is None:
            notes.append(
                f"{region.region}: no service {region.name} yet. For its first release:"
                f" ./ship deliver {context.where}"
            )
            data.append(_described(region.region, None))
            continue
        rows += [
            [
                region.region,
                one["revision"],
                _share(one),
                one["state"],
                ago(one["since"]),
                one["commit"][:7] or "?",
                ImageReference.parse(one["image"]).short_digest,
            ]
            for one in _revisions(state)
        ]
        watched, shown = _watched(context, region.region, state)
        following = f"next: {_next_command(state)}"
        notes += [
            f"{region.region}: {state.url}",
            *_notes(state, context.now()),
            *watched,
            following,
        ]
        data.append(_described(region.region, state, shown))
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "regions": data,
            "errors": [f"{region}: {error.message}" for region, error in tried.errors.items()],
        },
        table=Table(
            columns=["REGION", "REVISION", "TRAFFIC", "STATE", "SINCE", "COMMIT", "IMAGE"],
            rows=rows,
            notes=[*notes, *tried.lines],
            give_way=["IMAGE", "REGION", "SINCE"],
        ),
        code=1 if tried.errors else 0,
    )


def _described(region: str, state: State | None, watched: Watched | None = None) -> dict[str, Any]:
    """Return the part of the JSON document about one region.

    What users were answered is read for one service only: it takes two reads for each region.
    """
    if state is None:
        return {"region": region, "exists": False}
    return {
        "region": region,
        "exists": True,
        "url": state.url,
        "revisions": _revisions(state),
        "candidate": state.candidate,
        "stable": state.stable,
        "known_good": state.known_good,
        "hold": to_builtins(state.hold),
        "in_progress": to_builtins(state.in_progress),
        "failed": to_builtins(state.failure),
        "watch": watched and watched.data,
        "in_force": state.in_force,
        "not_in_force_because": None if state.in_force else state.not_taken,
        "next": _next_command(state),
    }


def _watched(context: Context, region: str, state: State) -> tuple[list[str], Watched | None]:
    """Return what users were answered by a release in progress, where that is watched."""
    rules = context.pipeline.environment.rollout.watch
    candidate = state.candidate
    if rules is None or candidate is None or is_finished(state, candidate):
        return [], None
    stable = {region: state.beside(candidate)}
    try:
        found = weighed(context, Answered(context, rules), candidate, {region: state}, stable)
    except ShipError as error:
        return [f"users' answers are not seen: {error.message}"], None
    if found is None:
        return [], None
    shown = show(context, found, candidate, {region: state}, stable)
    return [shown.said, *(f"  {line}" for line in lines(shown))], shown


def _share(one: dict[str, Any]) -> str:
    """Return a revision's share as users get it, and the share that was asked for if it differs."""
    if one["served"] == one["percent"]:
        return f"{one['percent']} %"
    return f"{one['served']} % ({one['percent']} % wanted)"


def _notes(state: State, now: str) -> list[str]:
    """List what is unusual about a service: a hold, a step in progress, a failure, a lag."""
    notes = [f"ON HOLD: {state.hold}"] if state.hold else []
    if not state.in_force:
        notes.append(f"NOT IN FORCE: Cloud Run has not taken the traffic: {state.not_taken}")
    if (one := state.candidate) and not is_finished(state, one) and not state.was_given(one):
        notes.append(f"CHANGED: someone else gave {one} {state.shares.get(one, 0)} %")
    if step := state.unwatched(now):
        notes.append(
            f"NOT WATCHED: no one watches the {step}; it should have ended {ago(step.until)}."
            f" ./ship {step.verb} {state.where} takes it up"
        )
    elif step := state.in_progress:
        notes.append(
            f"IN PROGRESS: {step}, since {ago(step.at)}. If it does not run any more:"
            f" ./ship {step.verb} {state.where} takes it up"
        )
    elif (deploy := left_deploy(state)) and not has_failed(state.revisions[deploy.revision]):
        notes.append(
            f"IN PROGRESS: {deploy.revision} is deployed and not released, since {ago(deploy.at)}"
            f" (by {deploy.by}). If it does not run any more: ./ship deliver {state.where}"
        )
    if state.failure:
        notes.append(
            f"FAILED: the last release, of {state.failure}. It has no traffic."
            f" To try it again: ./ship rollout {state.where}"
        )
    return notes


def _revisions(state: State) -> list[dict[str, Any]]:
    """List the revisions that matter now: serving, candidate, rollback target, failed to start."""
    by_name = state.revisions
    served, shares = state.served, state.shares
    names = sorted({**served, **shares}, key=lambda name: (-shares.get(name, 0), name))
    back = previous(state)
    failed = state.failure.revision if state.failure else None
    for name in (state.candidate, back, failed, _newest_failed(state)):
        if name and name in by_name and name not in names:
            names.append(name)
    tags = traffic.tags(state.targets)
    shown = []
    for name in names:
        revision = by_name.get(name, {"metadata": {}})
        shown.append(
            {
                "revision": name,
                "percent": state.shares.get(name, 0),
                "served": served.get(name, 0),
                "state": describe(state, name, revision, back),
                "since": _since(state, name, revision),
                "commit": commit_of(revision),
                "image": str(image_of(revision)),
                "tags": sorted(tag for tag, of in tags.items() if of == name),
            }
        )
    return shown


def _newest_failed(state: State) -> str | None:
    """Return the newest revision if it did not start."""
    name = state.status.get("latestCreatedRevisionName")
    return name if name in state.revisions and has_failed(state.revisions[name]) else None


def _since(state: State, name: str, revision: Object) -> str:
    """Return when a revision's share last changed, or when it was created."""
    moved = (e.at for e in reversed(state.log) if e.revision == name and e.percent is not None)
    return next(moved, str(revision["metadata"].get("creationTimestamp", "")))


def _next_command(state: State) -> str:
    """Return the next command for a release manager."""
    if state.hold:
        return f"./ship resume {state.where}, once the cause of the hold is fixed"
    back = f"; ./ship rollback {state.where} to roll back" if previous(state) else ""
    candidate = state.candidate
    if state.left(candidate, "rollout"):
        return f"./ship rollout {state.where} to continue{back}"
    if candidate in state.ready and not is_finished(state, candidate):
        share = "" if state.was_given(candidate) else " --to PERCENT"
        return f"./ship promote {state.where}{share} to continue{back}"
    return f"./ship deliver {state.where} to release a commit{back}"


def _table(context: Context) -> Table:
    """Return the current table; while the API does not answer, the error instead."""
    try:
        return status(context).table
    except ShipError as error:
        return Table(columns=["REGION"], rows=[], notes=[f"ship: {error.message}"])


def _watch(context: Context) -> int:
    if not terminal.is_terminal(sys.stdout):
        return _watch_plainly(context)
    from rich.console import Group

    console = terminal.console(sys.stdout)
    with terminal.live(console) as live:
        try:
            while True:
                table = _table(context)
                shown = rich_table(table, console.width)
                live.update(Group(*map(one_line, table.notes), "", shown))
                time.sleep(_EVERY_SECONDS)
        except KeyboardInterrupt:
            return 0


def _watch_plainly(context: Context) -> int:
    """Print the table again whenever something other than the clock has changed."""
    last = None
    try:
        while True:
            table = _table(context)
            shown = [row[:4] for row in table.rows], table.notes
            if shown != last:
                print(plain_table(table), flush=True)
                last = shown
            time.sleep(_EVERY_SECONDS)
    except KeyboardInterrupt:
        return 0
