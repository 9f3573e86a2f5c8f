"""Show which revisions are live, with commit and image, any hold, and the next command.

--watch keeps it up to date until Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

from scripts.command import terminal
from scripts.command.call import Call
from scripts.command.options import ServiceOptions, option
from scripts.command.results import Result, Table, plain_table, rich_table
from scripts.command.visible import one_line
from scripts.command.words import ago
from scripts.config.image_reference import ImageReference
from scripts.errors import ShipError
from scripts.release import traffic
from scripts.release.manifest import Object, commit_of, image_of
from scripts.release.state import State, describe, has_failed, is_finished, previous, to_builtins
from scripts.service.context import Context

_EVERY_SECONDS = 1.0


class Options(ServiceOptions, frozen=True, kw_only=True):
    watch: Annotated[bool, option("--watch", help="refresh the table until Ctrl-C")] = False


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
    for region in context.regions:
        state = region.read()
        if state is None:
            notes.append(
                f"{region.region}: no service {region.name} yet. For its first release:"
                f" ./ship deliver {context.where}"
            )
            data.append({"region": region.region, "exists": False})
            continue
        shown = _revisions(state)
        rows += [
            [
                region.region,
                one["revision"],
                f"{one['percent']} %",
                one["state"],
                ago(one["since"]),
                one["commit"][:7] or "?",
                ImageReference.parse(one["image"]).short_digest,
            ]
            for one in shown
        ]
        following = _next_command(state)
        hold = [f"ON HOLD: {state.hold}"] if state.hold else []
        notes += [f"{region.region}: {state.url}", *hold, f"next: {following}"]
        data.append(
            {
                "region": region.region,
                "exists": True,
                "url": state.url,
                "revisions": shown,
                "candidate": state.candidate,
                "stable": state.stable,
                "known_good": state.known_good,
                "hold": to_builtins(state.hold),
                "next": following,
            }
        )
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "regions": data,
        },
        table=Table(
            columns=["REGION", "REVISION", "TRAFFIC", "STATE", "SINCE", "COMMIT", "IMAGE"],
            rows=rows,
            notes=notes,
        ),
    )


def _revisions(state: State) -> list[dict[str, Any]]:
    """List the revisions that matter now: serving, candidate, rollback target, failed to start."""
    by_name = state.revisions
    names = sorted(state.shares, key=lambda name: -state.shares[name])
    back = previous(state)
    for name in (state.candidate, back, _newest_failed(state)):
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
    if candidate in state.ready and not is_finished(state, candidate):
        return f"./ship promote {state.where} to continue{back}"
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

    with terminal.live(terminal.console(sys.stdout)) as live:
        try:
            while True:
                table = _table(context)
                live.update(Group(*map(one_line, table.notes), "", rich_table(table)))
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
