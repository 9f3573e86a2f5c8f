"""What identifies a service or a revision, and the project numbers that go with project IDs."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Key(NamedTuple):
    """A named thing in one project (its ID) and region."""

    project: str
    region: str
    name: str

    @property
    def path(self) -> str:
        """The key as a relative path, `project/region/name`."""
        return "/".join(self)

    def sibling(self, name: str) -> Key:
        """The thing called `name` in the same project and region."""
        return self._replace(name=name)


def project_number(project: str) -> str:
    """The 12-digit number of a project ID: made up, but always the same one."""
    if project.isdigit():
        return project
    digest = hashlib.sha256(project.encode()).digest()
    return str(100_000_000_000 + int.from_bytes(digest[:8], "big") % 900_000_000_000)


def default_service_account(project: str) -> str:
    """The e-mail of the account that revisions run as unless they name one."""
    return f"{project_number(project)}-compute@developer.gserviceaccount.com"
