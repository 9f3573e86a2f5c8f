"""Ask questions on a terminal, each until the answer is valid."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from scripts.errors import Refused, UsageError

T = TypeVar("T")


def ask(
    what: str,
    option: str,
    form: Callable[[str], T],
    given: str | None,
    default: str | None,
    *,
    yes: bool = False,
) -> T:
    """Return the value of an option, or else the answer on a terminal, or else the default.

    Args:
        what: the question.
        option: the option that answers it in advance.
        form: converts the text to a value, or raises UsageError.
        given: the option's text, if it was given.
        default: the answer if the user only presses Enter; None if there is none.
        yes: take the default, if there is one, without a question.

    Raises:
        UsageError: the option is wrong; or it is missing, and there is no terminal.
        Refused: the terminal was closed.
    """
    if given is not None:
        return form(given)
    if not sys.stdin.isatty() or (yes and default is not None):
        if default is None:
            raise UsageError(
                f"{option} is missing: {what.lower()}", "./ship init --help lists the options"
            )
        return form(default)
    while True:
        shown = f" [{default}]" if default is not None else ""
        print(f"{what}{shown}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            raise Refused("not answered: nothing changed")
        text = line.strip() or default
        try:
            return form(text or "")
        except UsageError as error:
            expected = error.message.removeprefix("'' is not ")
            print(f"  {error.message if text else f'type {expected}'}", file=sys.stderr)


def confirm(question: str) -> None:
    """Ask for confirmation, if there is a terminal.

    Raises:
        Refused: the answer is not yes.
    """
    if not sys.stdin.isatty():
        return
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed: nothing changed", "--yes confirms in advance")
