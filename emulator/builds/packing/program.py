"""What a command of a RUN asks for: a program to start, or something that is not done here."""

from __future__ import annotations

from dataclasses import dataclass

NO_SYSTEM = "there is no operating system to run this in"


class Refused(Exception):
    """A command that cannot be executed: why, and what to write instead, if that is known."""

    def __init__(self, reason: str, instead: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead


@dataclass(frozen=True)
class Program:
    """A program of this machine that installs packages into the stage's files.

    Attributes:
        argv: its words, with `{root}` for the folder that stands for the image's root.
        prefix: the folder of the Python environment to install into, such as `usr/local`.
        makes: the folders that it fills.
        reads: the files that its result depends on; None for all.
        environment: variables that it gets, with `{root}` as in `argv`.
        text: as the Dockerfile has it.
    """

    argv: tuple[str, ...]
    folder: str
    prefix: str | None = None
    makes: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    text: str = ""

    @property
    def name(self) -> str:
        """The program: "pip", "npm", …"""
        return self.argv[0]
