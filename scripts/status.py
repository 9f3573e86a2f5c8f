"""Show what serves, since when, which commit and image, what is on hold, and what to type next.

--watch keeps it live until Ctrl-C.
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
from scripts.command.words import ago, short_digest
from scripts.errors import ShipError
from scripts.release import traffic
from scripts.release.manifest import Object, commit_of, image_of
from scripts.release.state import State, finished, has_failed, previous, read_state, to_builtins
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
    """Read every region; one row for each revision that matters now."""
    rows: list[list[str]] = []
    notes: list[str] = []
    data: list[dict[str, Any]] = []
    for region in context.regions:
        service = region.service()
        if service is None:
            notes.append(
                f"{region.region}: no service {region.name} yet; its first release:"
                f" ./ship deliver {context.where}"
            )
            data.append({"region": region.region, "exists": False})
            continue
        revisions = region.relevant(service)
        state = read_state(service, revisions, context.where)
        shown = _revisions(state, revisions)
        rows += [
            [
                region.region,
                one["revision"],
                f"{one['percent']} %",
                one["state"],
                ago(one["since"]),
                one["commit"][:7] or "?",
                short_digest(one["image"]),
            ]
            for one in shown
        ]
        url = (service.get("status") or {}).get("url", "")
        following = next_command(state)
        hold = [f"ON HOLD: {state.hold}"] if state.hold else []
        notes += [f"{region.region}: {url}", *hold, f"next: {following}"]
        data.append(
            {
                "region": region.region,
                "exists": True,
                "url": url,
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


def _revisions(state: State, revisions: list[Object]) -> list[dict[str, Any]]:
    """The revisions that matter now: what serves, what is under way, what a rollback goes to."""
    by_name = {revision["metadata"]["name"]: revision for revision in revisions}
    names = sorted(state.shares, key=lambda name: -state.shares[name])
    back = previous(state)
    for name in (state.candidate, back, _failed(state, by_name)):
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
                "since": since(state, name, revision),
                "commit": commit_of(revision),
                "image": image_of(revision),
                "tags": sorted(tag for tag, of in tags.items() if of == name),
            }
        )
    return shown


def _failed(state: State, by_name: dict[str, Object]) -> str | None:
    """The newest revision, if it did not start."""
    name = (state.service.get("status") or {}).get("latestCreatedRevisionName")
    return name if name in by_name and has_failed(by_name[name]) else None


def describe(state: State, name: str, revision: Object, back: str | None) -> str:
    """What a revision is to the release manager, in a word or two."""
    if has_failed(revision):
        return "failed to start"
    if name == state.candidate and not finished(state, name):
        return "candidate"
    if name in state.shares:
        return "serving" if name == state.stable else "left over"
    if name == back:
        return "to roll back to"
    return "known good" if name in state.known_good else ""


def since(state: State, name: str, revision: Object) -> str:
    """When a revision's share last changed; before any change, when it was made."""
    moved = (e.at for e in reversed(state.log) if e.revision == name and e.percent is not None)
    return next(moved, str(revision["metadata"].get("creationTimestamp", "")))


def next_command(state: State) -> str:
    """What a release manager would type next."""
    if state.hold:
        return f"./ship resume {state.where}, when what caused the hold is mended"
    back = f"; ./ship rollback {state.where} goes back" if previous(state) else ""
    candidate = state.candidate
    if candidate in state.ready and not finished(state, candidate):
        return f"./ship promote {state.where} goes on{back}"
    return f"./ship deliver {state.where} releases a commit{back}"


def _table(context: Context) -> Table:
    """The table now; while nobody answers, what is wrong in the place of the table."""
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
    """Without a terminal: the table again whenever something but the clock has changed."""
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
