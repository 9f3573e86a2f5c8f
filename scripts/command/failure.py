"""How an error is shown: as text, as JSON, and on a workflow's run page."""

from __future__ import annotations

import sys
from typing import Any

from scripts.command import github
from scripts.command.github import loggable
from scripts.command.record import Record
from scripts.command.terminal import is_terminal
from scripts.errors import ShipError


def show(error: ShipError, record: Record) -> None:
    """Print an error on standard error: what went wrong, the evidence, and what to do next.

    Args:
        error: the error.
        record: what the verb saw before it.
    """
    red, dim, off = ("\033[31m", "\033[2m", "\033[0m") if is_terminal(sys.stderr) else ("", "", "")
    print(f"{red}ship:{off} {loggable(error.message)}", file=sys.stderr)
    for line in (*error.evidence, *error.service_says):
        print(f"{dim}  | {loggable(line)}{off}", file=sys.stderr)
    if error.hint:
        print(f"  -> {loggable(error.hint)}", file=sys.stderr)
    for line in error.more:
        print(f"  {loggable(line)}", file=sys.stderr)
    title = f"ship {record.verb} {record.where}".rstrip()
    github.annotate(title, f"{error.message}\n{error.hint}" if error.hint else error.message)
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
