"""What users see. Results go to standard output, progress to standard error."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec

from scripts.errors import ShipError

_WRAPPED = {"FOUND"}
_STYLES = {"serving": "green", "candidate": "yellow", "wrong": "red", "skipped": "dim"}
_GIVING_WAY = {"IMAGE", "LAST", "WHY", "MADE", "SINCE", "BY"}


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under column names, and lines that follow them."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = []


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb found or did.

    Attributes:
        data: the JSON document.
        table: the same for people.
        code: the exit code.
    """

    data: dict[str, Any]
    table: Table
    code: int = 0
    summary: str = ""
    """Markdown for the run page of a workflow; "" for the table as it is."""


class Step:
    """One step that is being taken; `done` says how it ended."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = name
        self.started = time.monotonic()
        self.outcome = ""
        self._progress = progress

    def say(self, text: str) -> None:
        """Tell what is going on: a live line on a terminal, a line of its own elsewhere."""
        self._progress.update(self, text)

    def done(self, outcome: str) -> None:
        """Tell how it ended; printed when the step is left."""
        self.outcome = outcome


class Progress:
    """Live on a terminal, one line per event elsewhere; always on standard error."""

    def __init__(self) -> None:
        self._live = _is_terminal(sys.stderr)
        self._status: Any = None
        self._console: Any = None
        if self._live:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """Show a step while it is taken, and how it ended.

        Args:
            name: one word, such as "build".
            doing: what is being done.
        """
        step = Step(name, self)
        if self._live:
            self._status = self._console.status("")
            self._status.start()
            step.say(doing)
        try:
            yield step
        except BaseException:
            self._end(step, "✗", "red", "")
            raise
        self._end(step, "✓", "green", step.outcome or doing)

    def update(self, step: Step, text: str) -> None:
        """Replace a step's live line, or print one more line."""
        if self._live and self._status:
            self._status.update(f"[bold]{step.name:<8}[/] {_escape(text)}")
        else:
            self.line(f"{step.name:<8} {text}")

    def _end(self, step: Step, mark: str, colour: str, outcome: str) -> None:
        took = f"{time.monotonic() - step.started:.1f} s"
        if self._live:
            self._status.stop()
            self._status = None
            self._console.print(
                f"[{colour}]{mark}[/] [bold]{step.name:<8}[/] {_escape(outcome)} [dim]{took}[/]"
            )
        elif outcome:
            self.line(f"{step.name:<8} {outcome} ({took})")

    def line(self, text: str) -> None:
        """One line for an event."""
        if self._live:
            self._console.print(_escape(text))
        else:
            print(loggable(text), file=sys.stderr, flush=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def show(result: Result, format_: str) -> int:
    """Print a result: one table or one JSON document. In GitHub Actions also hand it on.

    Returns:
        The exit code. The change is made by now: whoever does not read of it changes nothing.
    """
    try:
        _print(result, format_)
        sys.stdout.flush()
    except OSError:
        # Nobody reads, or the disk is full. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _to_github(result)
    _to_files(result)
    if result.code:
        annotate("ship", "\n".join(result.data.get("errors") or ["it failed: the log shows what"]))
    return result.code


def _print(result: Result, format_: str) -> None:
    if format_ == "json":
        print(json_text(result.data, indent=2))
    elif _is_terminal(sys.stdout):
        from rich.console import Console

        console = Console(highlight=False)
        console.print(rich_table(result.table))
        for note in result.table.notes:
            # The terminal breaks lines itself: a command that is printed can be copied whole.
            console.print(_escape(note), soft_wrap=True)
    else:
        print(loggable(plain_table(result.table)))


def plain_table(table: Table) -> str:
    """A table as aligned text."""
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *table.notes])


def rich_table(table: Table) -> Any:
    """A table for a terminal."""
    from rich.table import Table as RichTable

    shown = RichTable(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for column in table.columns:
        # A name that is cut in two cannot be copied: on a narrow terminal other columns give way.
        gives_way = column in _GIVING_WAY
        shown.add_column(
            column,
            overflow="ellipsis" if gives_way else "fold",
            no_wrap=column not in _WRAPPED,
            min_width=1 if gives_way else None,
        )
    for row in table.rows:
        style = next((_STYLES[cell] for cell in row if cell in _STYLES), "")
        shown.add_row(*(_escape(cell) for cell in row), style=style)
    return shown


def show_error(error: ShipError) -> None:
    """Print one clear error: what, the evidence, and what to do next."""
    red, dim, off = ("\033[31m", "\033[2m", "\033[0m") if _is_terminal(sys.stderr) else ("", "", "")
    print(f"{red}ship:{off} {loggable(error.message)}", file=sys.stderr)
    for line in error.evidence:
        print(f"{dim}  | {loggable(line)}{off}", file=sys.stderr)
    if error.hint:
        print(f"  -> {loggable(error.hint)}", file=sys.stderr)
    for line in error.more:
        print(f"  {loggable(line)}", file=sys.stderr)
    what = f"ship {error.about.verb} {error.about.where}" if error.about else "ship"
    annotate(what, f"{error.message}\n{error.hint}" if error.hint else error.message)
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        from scripts.command import run_page

        _append("GITHUB_STEP_SUMMARY", run_page.of_error(error))


def annotate(title: str, message: str) -> None:
    """In GitHub Actions, show an error on the run's page; elsewhere nothing."""
    if _in_github():
        from scripts.command import run_page

        print(run_page.annotation(title, message), file=sys.stderr, flush=True)


def _in_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def json_text(document: Any, indent: int | None = None) -> str:
    """A JSON document for standard output, in which a workflow's runner finds no command."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return text.replace("##[", "#\\u0023[") if _in_github() else text


def loggable(text: str) -> str:
    """Text for the log: in GitHub Actions, none that the runner takes for a command."""
    if not _in_github():
        return text
    from scripts.command import run_page

    return run_page.inert(text)


def _to_files(result: Result) -> None:
    """Hand the facts on where there is no GITHUB_OUTPUT: one file each in $SHIPWAY_OUTPUTS."""
    folder = os.environ.get("SHIPWAY_OUTPUTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for key, value in result.data.items():
        if isinstance(value, str | int | bool):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            (Path(folder) / key).write_text(text)


def _to_github(result: Result) -> None:
    lines = []
    for key, value in result.data.items():
        if isinstance(value, str | int | bool):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            # A delimiter that nobody can guess, so that no value can end itself early.
            mark = secrets.token_hex(8)
            lines.append(f"{key}<<{mark}\n{text}\n{mark}\n")
    _append("GITHUB_OUTPUT", "".join(lines))
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        from scripts.command import run_page

        table = result.table
        page = result.summary or run_page.of_table(table.columns, table.rows, table.notes)
        _append("GITHUB_STEP_SUMMARY", page)


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if path and text:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def now() -> str:
    """This moment as RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(timestamp: str, at: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was, as people say it: "5 min ago"."""
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    past = int(((at or datetime.now(UTC)) - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if past >= size:
            return f"{past // size} {unit} ago"
    return f"{max(past, 0)} s ago"


def short_digest(image: str) -> str:
    """The part of an image reference that people compare: "sha256:0123456789ab"."""
    _, _, digest = image.rpartition("@")
    return digest[:19] if digest.startswith("sha256:") else image


def split(shares: dict[str, int]) -> str:
    """Shares in one line: "app-1a2b3c4 90 %, app-5d6e7f8 10 %"."""
    parts = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {percent} %" for name, percent in parts) or "nothing"
