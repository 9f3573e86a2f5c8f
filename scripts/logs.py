"""Show the logs of a service's containers, and their requests, oldest first.

--follow prints new entries until Ctrl-C. With --format json it prints one entry on each line.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

from scripts.cloud.logs import SEVERITIES, Entry, Log, container_of, revision_of, text_of
from scripts.command import values
from scripts.command.call import Call
from scripts.command.github import json_text
from scripts.command.options import ServiceOptions, option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.command.visible import hanging
from scripts.config.pipelines import seconds
from scripts.service.context import Context

_EVERY_SECONDS = 1.0


class Options(ServiceOptions, frozen=True, kw_only=True):
    revision: Annotated[str | None, option("--revision", help="only entries of this revision")] = (
        None
    )
    follow: Annotated[bool, option("--follow", help="print new entries until Ctrl-C")] = False
    limit: Annotated[
        int,
        option(
            "--limit",
            parse=values.count,
            metavar="N",
            help="how many of the newest entries (default: %(default)s)",
        ),
    ] = 100
    since: Annotated[
        str,
        option(
            "--since",
            parse=values.duration,
            metavar="TIME",
            help="how far to look back: 90s, 10m, 1h (default: %(default)s)",
        ),
    ] = "24h"
    severity: Annotated[
        str | None,
        option(
            "--severity",
            parse=str.upper,
            choices=SEVERITIES,
            help="only entries of this severity or a higher one",
        ),
    ] = None


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    log = Log(
        context.google,
        context.pipeline,
        revision=options.revision,
        severity=options.severity,
    )
    start = datetime.now(UTC) - timedelta(seconds=seconds(options.since))
    entries = log.newest(start, options.limit)
    if options.follow:
        return _follow(log, start, entries, options.format)
    return call.show(_result(context, entries, options.since), options.format)


def _follow(log: Log, start: datetime, entries: list[Entry], format_: str) -> int:
    # Earlier entries are outside --limit.
    start = datetime.fromisoformat(entries[0]["timestamp"]) if entries else start
    try:
        _print(entries, format_)
        for fresh in log.follow(start, entries):
            _print(fresh, format_)
            time.sleep(_EVERY_SECONDS)
    except KeyboardInterrupt:
        pass
    return 0


def _print(entries: list[Entry], format_: str) -> None:
    for entry in entries:
        line = json_text(entry) if format_ == "json" else hanging("  ".join(_row(entry)), 4)
        print(line, flush=True)


def _result(context: Context, entries: list[Entry], since: str) -> Result:
    none = f"no entries in the last {since}. To look further back: --since TIME"
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "entries": entries,
        },
        table=Table(
            columns=["TIME", "SEVERITY", "REVISION", "TEXT"],
            rows=[_row(entry) for entry in entries],
            notes=[] if entries else [none],
        ),
    )


def _row(entry: Entry) -> list[str]:
    moment = entry["timestamp"][:23].rstrip("Z")
    text = text_of(entry)
    if container := container_of(entry):
        text = f"[{container}] {text}"
    return [moment, entry.get("severity", "DEFAULT"), revision_of(entry), text]
