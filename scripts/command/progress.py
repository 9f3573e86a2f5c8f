"""Progress on standard error: live on a terminal, one line per event elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.command import terminal
from scripts.command.terminal import styled
from scripts.command.visible import one_line

if TYPE_CHECKING:
    from rich.live import Live
    from rich.spinner import Spinner


_STILL_SECONDS = 5.0


class Step:
    """One step of a verb, while it runs; `done` records how it ended."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = name
        self.started = time.monotonic()
        self.outcome = ""
        self.ok = True
        self._progress = progress
        self._said = self.started

    def say(self, text: str) -> None:
        """Print the current activity: a live line on a terminal, a line of its own elsewhere."""
        self._said = time.monotonic()
        self._progress.update(self, text)

    def still(self, text: str) -> None:
        """Print what the step waits for, and for how long now; every few seconds, however often
        it is called.
        """
        now = time.monotonic()
        if now - self._said >= _STILL_SECONDS:
            self.say(f"after {now - self.started:.0f} s: {text}")

    def done(self, outcome: str, *, ok: bool = True) -> None:
        """Set how the step ended, and whether well; it is printed when the step is left."""
        self.outcome = outcome
        self.ok = ok


class Progress:
    """The progress of one call of a verb.

    Args:
        label: stands before each line, and lines are all there is; "" for none.
    """

    def __init__(self, label: str = "") -> None:
        self._live: Live | None = None
        self._spinner: Spinner | None = None
        self._label = label
        is_live = not label and terminal.is_terminal(sys.stderr)
        self._console = terminal.console(sys.stderr) if is_live else None

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """Show a step while it runs, and then how it ended.

        Args:
            name: one word, such as "build".
            doing: what the step works on.
        """
        step = Step(name, self)
        if self._console:
            from rich.spinner import Spinner

            self._spinner = Spinner("dots", style="status.spinner")
            step.say(doing)
            self._live = terminal.live(
                self._console, self._spinner, per_second=12.5, transient=True
            )
            self._live.start()
        try:
            yield step
        except BaseException:
            self._end(step, "✗", "red", "")
            raise
        mark, color = ("✓", "green") if step.ok else ("✗", "red")
        self._end(step, mark, color, step.outcome or doing)

    def update(self, step: Step, text: str) -> None:
        """Replace a step's live line, or print one more line."""
        if self._spinner and self._console:
            shown = styled((f"{step.name:<8}", "bold"), f" {one_line(text)}")
            # One line: what is longer would flicker, and leave lines behind.
            shown.truncate(self._console.width - 3, overflow="ellipsis")
            self._spinner.update(text=shown)
        else:
            self.line(f"{step.name:<8} {text}")

    def _end(self, step: Step, mark: str, color: str, outcome: str) -> None:
        took = f"{time.monotonic() - step.started:.1f} s"
        if self._live:
            self._live.stop()
            self._live = self._spinner = None
        if self._console:
            name = (f"{step.name:<8}", "bold")
            self._console.print(
                styled((mark, color), " ", name, f" {one_line(outcome)} ", (took, "dim"))
            )
        elif outcome:
            self.line(f"{step.name:<8} {outcome} ({took})")

    def line(self, text: str) -> None:
        """Print one line for an event."""
        if self._console:
            self._console.print(one_line(text))
        else:
            # In one write: several threads print lines.
            print(f"{self._label}{one_line(text)}\n", end="", file=sys.stderr, flush=True)
