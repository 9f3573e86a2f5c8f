"""What was found in a Dockerfile: the instructions that cannot be packed, and notes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """An instruction that cannot be packed.

    Attributes:
        file: the Dockerfile's name.
        line: the instruction's first line, from 1.
        instruction: its text, shortened; "" where the line has none.
        reason: why it cannot be packed.
        instead: what to write instead; "" where nothing is known.
        with_docker_too: whether Docker must not build it either, because the image would hold a
            secret.
    """

    file: str
    line: int
    instruction: str
    reason: str
    instead: str = ""
    with_docker_too: bool = False

    @property
    def what(self) -> str:
        """The problem on one line: `FILE:LINE: INSTRUCTION: REASON`."""
        named = f"{self.instruction}: " if self.instruction else ""
        return f"{self.file}:{self.line}: {named}{self.reason}"

    def __str__(self) -> str:
        return f"{self.what}; write instead: {self.instead}" if self.instead else self.what


@dataclass(frozen=True)
class Note:
    """An instruction that is packed in another way than Docker builds it.

    Attributes:
        kind: "left-out", or "interpreter": another version runs than the base image has.
    """

    file: str
    line: int
    instruction: str
    text: str
    kind: str = "left-out"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.instruction}: {self.text}"


@dataclass
class Findings:
    """All that was found, in the order of the lines."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
