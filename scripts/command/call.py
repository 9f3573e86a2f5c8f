"""A call of a verb: the project's folder, the progress, the result and the record."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from scripts.command import results
from scripts.command.progress import Progress
from scripts.command.record import Record
from scripts.command.results import Result


class Call:
    """One call of a verb.

    Args:
        verb: its name.
        root: the folder that holds pipelines/.
        label: stands before each line of progress; "" for none.

    Attributes:
        record: what the verb saw and did.
        has_shown: whether standard output holds a result.
        at_end: called when the verb has ended, however it ended.
    """

    def __init__(self, verb: str, root: Path, label: str = "") -> None:
        self.root = root
        self._label = label
        self.record = Record(verb=verb, root=root)
        self.has_shown = False
        self.at_end: list[Callable[[], None]] = []

    @cached_property
    def progress(self) -> Progress:
        """Where the verb prints its progress."""
        return Progress(self._label)

    def show(self, result: Result, format_: str) -> int:
        """Print the verb's result as a table or a JSON document; return the exit code."""
        self.has_shown = True
        return results.show(result, format_)
