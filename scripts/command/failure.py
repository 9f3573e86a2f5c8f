"""Shows an error: as text, as JSON, and on a workflow's run page."""

from __future__ import annotations

import sys
from typing import Any

from scripts.command import github, terminal
from scripts.command.record import Record
from scripts.command.visible import hanging
from scripts.errors import ShipError

_RED = "31"
_DIM = "2"


def show(error: ShipError, record: Record) -> None:
    """Print an error on standard error: the message, the evidence, and the next command.

    Args:
        error: the error.
        record: what the verb saw before it.
    """
    terminal.write(sys.stderr, ("ship:", _RED), f" {hanging(error.message, 6)}")
    for text in (*error.evidence, *error.service_says):
        for line in text.split("\n"):
            terminal.write(sys.stderr, (f"  | {line}", _DIM))
    if error.hint:
        terminal.write(sys.stderr, f"  -> {hanging(error.hint, 5)}")
    for line in error.more:
        terminal.write(sys.stderr, f"  {hanging(line, 2)}")
    title = f"ship {record.verb} {record.where}".rstrip()
    terminal.annotate(title, f"{error.message}\n{error.hint}" if error.hint else error.message)
    if github.has_run_page():
        from scripts.command import run_page

        github.write_run_page(run_page.of_error(error, record))


def document(error: ShipError) -> dict[str, Any]:
    """Return an error as the JSON document that `--format json` prints."""
    return {
        "error": {
            "kind": error.kind,
            "message": error.message,
            "hint": error.hint,
            "evidence": [*error.evidence, *error.service_says],
            "exit_code": error.exit_code,
        }
    }
