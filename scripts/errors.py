"""The errors that a user can meet, and the exit code of each."""

from __future__ import annotations

from typing import Any


class ShipError(Exception):
    """One clear error: what went wrong, the evidence for it, and what to do next.

    Args:
        message: what went wrong, naming the file, line, option or revision.
        hint: the next command to type, or what to change.
        evidence: lines that show it: a response, a container's last log lines.

    Attributes:
        more: what it means, for an error that people really meet, and what else to type.
    """

    exit_code = 1

    def __init__(
        self, message: str, hint: str | None = None, *, evidence: list[str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.evidence = evidence or []
        self.about: Any = None
        """The verb's `Context`, where it came so far: what a summary tells besides."""
        self.more: list[str] = []


class Failed(ShipError):
    """It failed, and the service serves what it served before."""

    exit_code = 1


class UsageError(ShipError):
    """Bad usage or configuration: nothing was sent."""

    exit_code = 2


class Refused(ShipError):
    """Refused (a hold, a lost race, a missing approval): nothing changed."""

    exit_code = 3


def did_you_mean(word: str, known: list[str], what: str = "known") -> str:
    """What was meant by a word that is not known: the closest one, or all that there are.

    Args:
        word: what was written.
        known: what could have been written.
        what: how the list of all is introduced.
    """
    import difflib

    close = [name for name in known if name.startswith(word)]
    close = close or difflib.get_close_matches(word, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"{what}: {', '.join(known)}"
