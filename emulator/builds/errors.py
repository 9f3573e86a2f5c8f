"""The errors of a build, which its log shows."""

from __future__ import annotations


class BuildError(Exception):
    """A build that cannot be done.

    Attributes:
        message: What is wrong; of a Dockerfile with file and line.
        hint: What to do instead.
        evidence: Lines that show it, such as the last ones of pip.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, evidence: list[str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.evidence = evidence or []

    @property
    def lines(self) -> list[str]:
        """The error as lines of a log."""
        hint = [f"  -> {self.hint}"] if self.hint else []
        return [self.message, *(f"  | {line}" for line in self.evidence), *hint]


class UsageError(BuildError):
    """The source cannot be built as it is."""


class Failed(BuildError):
    """A step was run, and failed."""
