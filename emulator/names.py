"""What identifies a service or a revision, and the numbers of projects."""

from __future__ import annotations

from typing import NamedTuple

from emulator.hashes import number_of


class Key(NamedTuple):
    """What has a name in one project (its ID) and region."""

    project: str
    region: str
    name: str

    @property
    def path(self) -> str:
        """The key as a relative path, `PROJECT/REGION/NAME`."""
        return "/".join(self)

    def sibling(self, name: str) -> Key:
        """Return the key of `name` in the same project and region."""
        return self._replace(name=name)


def project_number(project: str) -> str:
    """Return the 12-digit number of a project: made up, and always the same for an ID."""
    if project.isdigit():
        return project
    return str(100_000_000_000 + number_of(project) % 900_000_000_000)


def default_service_account(project: str) -> str:
    """Return the e-mail of the account that a project's revisions run as by default."""
    return f"{project_number(project)}-compute@developer.gserviceaccount.com"
