"""What a plan is made without, if only its explanation is wanted and no account may read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from scripts.cloud.google import Google
from scripts.errors import ShipError, UsageError
from scripts.setup import cloud, github
from scripts.setup.identity_provider import Repository
from scripts.setup.steps import Found

# As long as GitHub's numbers are today, because accounts are named after them. A name takes their
# place in what is printed.
_REPOSITORY_ID, _OWNER_ID = 9_999_999_901, 9_999_999_902


class Named(Protocol):
    """The parts of the repository that the command line names."""

    @property
    def repository(self) -> str | None: ...
    @property
    def owner_id(self) -> int | None: ...
    @property
    def repository_id(self) -> int | None: ...


class Unread:
    """What could not be read, and the names that stand for it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._why: list[str] = []
        self._how: list[str] = []

    def repository(self, root: Path, options: Named, *, explains: bool) -> Repository:
        """Return the repository at GitHub; to explain, its numbers may stay unknown.

        Raises:
            UsageError: as `github.repository` does.
        """
        named, owner, own = options.repository, options.owner_id, options.repository_id
        try:
            return github.repository(root, named, owner, own)
        except UsageError:
            if not explains:
                raise
        made = github.repository(root, named, owner or _OWNER_ID, own or _REPOSITORY_ID)
        where = f"of https://api.github.com/repos/{made.full_name}"
        for given, number, name, field in (
            (own, _REPOSITORY_ID, "REPOSITORY_ID", "id"),
            (owner, _OWNER_ID, "OWNER_ID", "owner.id"),
        ):
            if given is None:
                self._names[str(number)] = name
                self._how.append(f"{name}: the field {field} {where}")
        return made

    def numbers(self, google: Google, projects: Sequence[str], *, explains: bool) -> dict[str, str]:
        """Return the projects' numbers; to explain, names that stand for them.

        Raises:
            ShipError: they cannot be read, and there is more to do than to explain.
        """
        try:
            return cloud.numbers(google, projects)
        except ShipError as error:
            if not explains:
                raise
            self._why.append(error.message)
        made = {project: f"NUMBER_OF_{project}" for project in dict.fromkeys(projects)}
        for project, name in made.items():
            read = f"gcloud projects describe {project} --format='value(projectNumber)'"
            self._how.append(f"{name}: {read}")
        return made

    def found(self, look: Callable[[], Found], *, explains: bool) -> Found:
        """Return what exists; to explain, nothing if it cannot be read.

        Raises:
            ShipError: it cannot be read, and there is more to do than to explain.
        """
        if self._why:
            return Found()
        try:
            return look()
        except ShipError as error:
            if not explains:
                raise
            self._why.append(error.message)
        return Found()

    def notes(self) -> list[str]:
        """Return the comments that the explanation starts with; none if all was read."""
        lines = []
        if self._why:
            why = " ".join(self._why[0].split())
            lines = [f"# What exists could not be read, so every step is listed: {why}"]
        if self._how:
            lines += ["# Replace these names before you run it:", *(f"#   {x}" for x in self._how)]
        return lines

    def named(self, line: str) -> str:
        """Return a line with the names that stand for unknown numbers."""
        for number, name in self._names.items():
            line = line.replace(number, name)
        return line
