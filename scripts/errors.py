"""The errors that a user can meet, and the exit code of each."""

from __future__ import annotations

_LONGEST = 1000  # characters; a message may quote a file or a server


class ShipError(Exception):
    """One clear error: what went wrong, the evidence for it, and what to do next.

    Args:
        message: what went wrong, naming the file, line, option or revision.
        hint: the next command to type, or what to change.
        evidence: lines that show it: what Google, Docker or git answered.
        service_says: further evidence in the service's own words: its answers, its log.

    Attributes:
        more: what a known error means, and more commands to type.
    """

    kind = "failed"
    exit_code = 1

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        evidence: list[str] | None = None,
        service_says: list[str] | None = None,
    ) -> None:
        super().__init__(_shortened(message))
        self.message = _shortened(message)
        self.hint = _shortened(hint) if hint else hint
        self.evidence = evidence or []
        self.service_says = service_says or []
        self.more: list[str] = []


class Failed(ShipError):
    """The command failed. What is known of the traffic is added at its end."""


class Unknown(Failed):
    """A write may or may not have been done: its answer was lost, and the server cannot be asked.

    The message has what was to be written; the hint is the command that finds out.
    """

    kind = "unknown"


class UsageError(ShipError):
    """Bad usage or configuration: nothing was written."""

    kind = "usage"
    exit_code = 2


class Refused(ShipError):
    """Refused because of a hold, a conflict or a missing approval: nothing changed."""

    kind = "refused"
    exit_code = 3


class NothingToDo(Refused):
    """Refused because there is nothing that the command could change. Of several, no failure."""

    kind = "nothing to do"


class Interrupted(ShipError):
    """The user or the runner ended the command; the current traffic stays in force."""

    kind = "interrupted"
    exit_code = 130


def _shortened(text: str) -> str:
    """Leave out the middle of a long text: what is wrong stays, and what to do about it."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"


def bug(error: Exception) -> Failed:
    """Make the error for an exception that no one expects; it keeps the exception as its cause."""
    failed = Failed(
        f"this should not happen: {type(error).__name__}: {error}",
        "--debug shows where; please report it",
    )
    failed.__cause__ = error
    return failed


def did_you_mean(word: str, known: list[str], what: str = "known") -> str:
    """Suggest the closest known word, or list them all.

    Args:
        word: the word that was written.
        known: the words that are allowed.
        what: the label of the list.
    """
    import difflib

    close = [name for name in known if name.startswith(word)]
    close = close or difflib.get_close_matches(word, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"{what}: {', '.join(known)}"
