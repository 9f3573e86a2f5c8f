"""Results on standard output: one table or one JSON document."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from scripts.command import github, terminal
from scripts.command.github import json_text
from scripts.command.visible import hanging, one_line

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_WRAPPED = {"FOUND", "WHAT", "TEXT", "FILES"}
_STYLES = {"serving": "green", "candidate": "yellow", "wrong": "red", "skipped": "dim"}
_GIVING_WAY = {"IMAGE", "LAST", "WHY", "MADE", "SINCE", "BY"}
_OF_SEVERAL_LINES = {"TEXT"}


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under column names, and notes below them. Their text may come from others."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = []


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verb.

    Attributes:
        data: the JSON document.
        table: the same in human-readable form.
        code: the exit code.
        page: Markdown for the run page of a workflow; "" to show the table there.
    """

    data: dict[str, Any]
    table: Table
    code: int = 0
    page: str = ""


def show(result: Result, format_: str) -> int:
    """Print a result as a table or a JSON document, and give it to the job that runs this.

    Returns:
        The exit code. It does not depend on whether the result could be printed: the change is
        made by now.
    """
    try:
        _print(result, format_)
        sys.stdout.flush()
    except OSError:
        # The reader has gone, or the disk is full. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    github.write_outputs(result.data)
    if github.has_run_page():
        from scripts.command import run_page

        table = result.table
        github.write_run_page(
            result.page or run_page.of_table(table.columns, table.rows, table.notes)
        )
    if result.code:
        errors = result.data.get("errors") or ["the command failed; the log shows why"]
        terminal.annotate("ship", "\n".join(errors))
    return result.code


def _print(result: Result, format_: str) -> None:
    if format_ == "json":
        print(json_text(result.data, indent=2))
    elif terminal.is_terminal(sys.stdout):
        console = terminal.console(sys.stdout)
        console.print(rich_table(result.table))
        for note in result.table.notes:
            # The terminal breaks lines itself: a command that is printed can be copied whole.
            console.print(hanging(note, 4), soft_wrap=True)
    else:
        print(plain_table(result.table))


def plain_table(table: Table) -> str:
    """Return a table as aligned text."""
    rows = [table.columns, *_cells(table)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *(hanging(note, 4) for note in table.notes)])


def _cells(table: Table) -> list[list[str]]:
    """Return the rows with visible text only: a cell is one line, unless its column is for text."""
    return [
        [
            hanging(cell, 4) if column in _OF_SEVERAL_LINES else one_line(cell)
            for column, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]


def rich_table(table: Table) -> RichTable:
    """Return a table for a terminal."""
    from rich.table import Table as RichTable

    rows = _cells(table)
    widths = _widths([table.columns, *rows], terminal.console(sys.stdout).width)
    shown = RichTable(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for column, width in zip(table.columns, widths, strict=True):
        shown.add_column(
            column,
            overflow="ellipsis" if column in _GIVING_WAY else "fold",
            no_wrap=column not in _WRAPPED,
            max_width=width,
        )
    for row in rows:
        style = next((_STYLES[cell] for cell in row if cell in _STYLES), "")
        shown.add_row(*row, style=style)
    return shown


def _widths(rows: list[list[str]], room: int) -> list[int | None]:
    """Return the largest width of each column; None for one that may be as wide as its contents.

    A name that is cut in two cannot be copied: on a narrow terminal only some columns give way.
    """
    natural = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    giving = [i for i, column in enumerate(rows[0]) if column in _GIVING_WAY]
    taken = sum(width for i, width in enumerate(natural) if i not in giving)
    left = room - taken - 2 * len(natural)
    widths: list[int | None] = [None] * len(natural)
    # The narrowest first, so that the space it does not need is left for the others.
    for number, i in enumerate(sorted(giving, key=natural.__getitem__)):
        share = max(1, left // (len(giving) - number))
        widths[i] = min(natural[i], share)
        left -= min(natural[i], share)
    return widths
