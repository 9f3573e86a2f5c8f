"""Progress on standard error: live on a terminal, one line per event elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.command.github import loggable
from scripts.command.terminal import escape, is_terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


class Step:
    """One step of a verb, while it runs; `done` records how it ended."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = name
        self.started = time.monotonic()
        self.outcome = ""
        self._progress = progress

    def say(self, text: str) -> None:
        """Print what is going on: a live line on a terminal, a line of its own elsewhere."""
        self._progress.update(self, text)

    def done(self, outcome: str) -> None:
        """Set how the step ended; it is printed when the step is left."""
        self.outcome = outcome


class Progress:
    """The progress of one call of a verb."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._console: Console | None = None
        if is_terminal(sys.stderr):
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """Show a step while it runs, and then how it ended.

        Args:
            name: one word, such as "build".
            doing: what the step works on.
        """
        step = Step(name, self)
        if self._console:
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
        if self._status:
            self._status.update(f"[bold]{step.name:<8}[/] {escape(text)}")
        else:
            self.line(f"{step.name:<8} {text}")

    def _end(self, step: Step, mark: str, colour: str, outcome: str) -> None:
        took = f"{time.monotonic() - step.started:.1f} s"
        if self._status:
            self._status.stop()
            self._status = None
        if self._console:
            self._console.print(
                f"[{colour}]{mark}[/] [bold]{step.name:<8}[/] {escape(outcome)} [dim]{took}[/]"
            )
        elif outcome:
            self.line(f"{step.name:<8} {outcome} ({took})")

    def line(self, text: str) -> None:
        """Print one line for an event."""
        if self._console:
            self._console.print(escape(text))
        else:
            print(loggable(text), file=sys.stderr, flush=True)
