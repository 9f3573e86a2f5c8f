"""What identifies a service or a revision, and the form and the numbers of projects.

The project and the location of every request are checked here before a handler runs
(`emulator.routes`). Each room checks the names of what it creates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from emulator.errors import ApiError, error_info, invalid
from emulator.hashes import number_of

# An ID (lowercase letters, digits and hyphens, at most 30, a letter first and no hyphen last) or a
# number. Google asks for 6 characters; shorter IDs are useful on one machine, and do no harm.
# Source: https://cloud.google.com/resource-manager/docs/creating-managing-projects#before_you_begin
_PROJECT = re.compile(r"[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?|[0-9]{1,19}")
# A region, a multi-region such as `us`, or `global`. `-` stands for all of them.
# Sources: https://cloud.google.com/run/docs/locations, https://google.aip.dev/159.
_LOCATION = re.compile(r"[a-z]{1,30}(?:-[a-z]{1,30}[0-9]{1,3})?|-")


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


def check_project(project: str) -> str:
    """Return `project`, an ID or a number; raises ApiError INVALID_ARGUMENT for another text."""
    if not _PROJECT.fullmatch(project):
        # Source of the reason: google/api/error_reason.proto of github.com/googleapis/googleapis.
        raise ApiError(
            "INVALID_ARGUMENT",
            "Invalid resource field value in the request.",
            [error_info("RESOURCE_PROJECT_INVALID", "googleapis.com", {})],
        )
    return project


def check_path(parts: Mapping[str, str]) -> None:
    """Check the project and the location in the path of a request.

    Args:
        parts: The named parts of the path, such as `project` and `region`.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    project = parts.get("project")
    # An account's e-mail names its project: clients write `-` instead.
    if project is not None and not (project == "-" and "email" in parts):
        check_project(project)
    for name in ("region", "location"):
        if name in parts and not _LOCATION.fullmatch(parts[name]):
            raise invalid("Malformed location.", name)


def project_number(project: str) -> str:
    """Return the 12-digit number of a project: made up, and always the same for an ID."""
    if project.isascii() and project.isdigit():
        return project
    return str(100_000_000_000 + number_of(project) % 900_000_000_000)


def default_service_account(project: str) -> str:
    """Return the e-mail of the account that a project's revisions run as by default."""
    return f"{project_number(project)}-compute@developer.gserviceaccount.com"
