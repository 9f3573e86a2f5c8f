"""Show what a service's containers wrote and were asked, oldest first.

--follow goes on until Ctrl-C. With --format json it prints one entry a line.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scripts.cloud.logs import SEVERITIES, Entry, Log, revision_of, text_of
from scripts.command import options
from scripts.command.terminal import Result, Table, json_text, loggable, show
from scripts.config.pipelines import seconds
from scripts.service.context import Context

_EVERY_SECONDS = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    options.common(parser)
    parser.add_argument("--revision", help="of this revision alone")
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--limit", type=options.count, default=100, help="the newest so many (%(default)s)"
    )
    parser.add_argument(
        "--since",
        type=options.duration,
        default="24h",
        metavar="TIME",
        help="90s, 10m, 1h … back from now (%(default)s)",
    )
    parser.add_argument(
        "--severity", type=str.upper, choices=SEVERITIES, help="of this severity and worse"
    )


def run(arguments: argparse.Namespace, root: Path) -> int:
    context = Context(arguments, root)
    log = Log(
        context.google,
        context.pipeline,
        revision=arguments.revision,
        severity=arguments.severity,
    )
    start = datetime.now(UTC) - timedelta(seconds=seconds(arguments.since))
    entries = log.newest(start, arguments.limit)
    if arguments.follow:
        return _follow(log, start, entries, arguments.format)
    return show(_result(context, entries), arguments.format)


def _follow(log: Log, start: datetime, entries: list[Entry], format_: str) -> int:
    # Older ones were not asked for: --limit.
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
        said = json_text(entry) if format_ == "json" else loggable("  ".join(_row(entry)))
        print(said, flush=True)


def _result(context: Context, entries: list[Entry]) -> Result:
    arguments = context.arguments
    none = f"no entries in the last {arguments.since}; --since looks further back"
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
    return [moment, entry.get("severity", "DEFAULT"), revision_of(entry), text_of(entry)]
