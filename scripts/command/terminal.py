"""The terminal and the log: the one way out for everything that scripts/ prints.

Text from others is only text. A terminal obeys none of it, rich finds no markup in it, and GitHub's
runner finds no command in it. `guard` filters the standard streams themselves, so `print` is safe
anywhere; colors and live lines go past that filter through the functions below, which apply it to
the text alone.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

from scripts.command import github
from scripts.command.visible import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text


class _Guarded(io.TextIOBase):
    """A standard stream that filters its text; `raw` is the stream itself."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        self.raw.write(shown(text))
        return len(text)

    def flush(self) -> None:
        self.raw.flush()

    def isatty(self) -> bool:
        return self.raw.isatty()

    def fileno(self) -> int:
        return self.raw.fileno()


def guard() -> None:
    """Filter everything that is printed from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Guarded):
            continue
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the encoding lacks
        setattr(sys, name, _Guarded(stream))


def shown(text: str) -> str:
    """Return text that is safe for a terminal and for the log of a job."""
    return github.inert(visible(text)) if github.in_job() else visible(text)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream shows colors and live lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def write(stream: TextIO, *parts: str | tuple[str, str]) -> None:
    """Print a line with colored parts.

    Args:
        stream: a standard stream.
        parts: text, or text and the number of its style in ECMA-48: "31" is red, "2" dim.
    """
    colored = is_terminal(stream)
    line = ""
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        line += f"\033[{style}m{shown(text)}\033[0m" if style and colored else shown(text)
    print(line, file=_raw(stream), flush=True)


def annotate(title: str, message: str) -> None:
    """In a job of GitHub Actions, show an error on the run's page; elsewhere do nothing."""
    if github.in_job():
        print(github.annotation(title, message), file=_raw(sys.stderr), flush=True)


def console(stream: TextIO) -> Console:
    """Return rich's console for a standard stream. It treats strings as text, never as markup."""
    from rich.console import Console

    class TextConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            options |= {"markup": False, "emoji": False, "highlight": False}
            return super().render_str(visible(text), **options)

    return TextConsole(file=_raw(stream), highlight=False)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return rich text with styled parts.

    Args:
        parts: text, or text and its style in rich's words: "bold red".
    """
    from rich.text import Text

    made = Text()
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        made.append(visible(text), style)
    return made


def live(
    on: Console, what: RenderableType = "", *, per_second: float = 4, transient: bool = False
) -> Live:
    """Return a live display.

    Args:
        on: the console.
        what: the first thing to show.
        per_second: how often it is drawn.
        transient: whether it is removed at the end.
    """
    from rich.live import Live

    # rich would otherwise replace the filtered streams with its own.
    return Live(
        what,
        console=on,
        refresh_per_second=per_second,
        transient=transient,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _raw(stream: TextIO) -> TextIO:
    # A stream of Python's own where nothing is guarded: in a test.
    return cast("_Guarded", stream).raw if isinstance(stream, _Guarded) else stream
