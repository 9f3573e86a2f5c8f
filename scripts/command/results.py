"""Results on standard output: one table or one JSON document."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from scripts.command import github, terminal
from scripts.command.github import json_text
from scripts.command.tables import Table, plain_table, rich_table
from scripts.command.visible import hanging


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verb.

    Attributes:
        data: the JSON document.
        table: the same in human-readable form.
        code: the exit code.
        page: Markdown for the run page of a workflow; "" to show the table there.
        outputs: further values for a workflow's job.
    """

    data: dict[str, Any]
    table: Table
    code: int = 0
    page: str = ""
    outputs: dict[str, str] = {}


# Notes that ask for a person.
_ALARMS = ("NOT WATCHED", "worse:")


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
    github.write_outputs({**result.data, **result.outputs})
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
        console.print(rich_table(result.table, console.width), soft_wrap=True)
        for note in result.table.notes:
            # The terminal breaks lines itself: a command that is printed can be copied whole.
            style = "bold red" if note.startswith(_ALARMS) else None
            console.print(hanging(note, 4), style=style, soft_wrap=True)
    else:
        print(plain_table(result.table))
