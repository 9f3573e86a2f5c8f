"""Questions on a terminal: each with what holds if nothing is typed, asked until it is right."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from scripts.errors import Refused, UsageError

T = TypeVar("T")


def ask(
    what: str, option: str, form: Callable[[str], T], given: str | None, default: str | None
) -> T:
    """What an option says, or what is answered on a terminal, or the default.

    Args:
        what: the question.
        option: the option that answers it beforehand.
        form: makes a value of the text, or raises UsageError.
        given: the option's text, if it was given.
        default: what holds if nothing is typed; None where that is not known.

    Raises:
        UsageError: the option is wrong, or missing where nobody can be asked.
        Refused: the terminal was closed.
    """
    if given is not None:
        return form(given)
    if not sys.stdin.isatty():
        if default is None:
            raise UsageError(f"{option} is missing: {what.lower()}?", "./ship init --help")
        return form(default)
    while True:
        shown = f" [{default}]" if default is not None else ""
        print(f"{what}{shown}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            raise Refused("not answered: nothing was changed")
        text = line.strip() or default
        if text is None:
            continue
        try:
            return form(text)
        except UsageError as error:
            print(f"  {error.message}", file=sys.stderr)


def confirm(question: str) -> None:
    """Ask once, where somebody can answer.

    Raises:
        Refused: the answer is not yes.
    """
    if not sys.stdin.isatty():
        return
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed: nothing was changed", "--yes answers beforehand")
