"""The projects, and the APIs that are enabled in each.

A request may name any project: all its APIs are enabled, and every repository and service account
that is named in it exists. A project that was created (`POST /_local/projects`) is as empty as a
new one at Google's: an API is disabled until it is enabled, and a resource exists once it was
created.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from emulator import clock
from emulator.errors import ApiError, error_info, invalid
from emulator.faults.models import Faults
from emulator.names import project_number
from emulator.projects import apis
from emulator.store import Store

Document = dict[str, Any]

_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
# Google answers its requests in every project: no other API could be enabled without it.
_ALWAYS = "serviceusage.googleapis.com"


class Api(NamedTuple):
    """An API in a project."""

    name: str
    title: str
    is_enabled: bool


class Projects:
    """The projects that were created, and those in which APIs were enabled or disabled."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._known: dict[str, Document] = {
            document["number"]: document for document in store.documents("known")
        }

    def make(self, project: str, enabled: Iterable[str]) -> Document:
        """Create an empty project; raises ApiError (INVALID_ARGUMENT, ALREADY_EXISTS).

        Args:
            project: The project's ID.
            enabled: The APIs that are enabled in it.
        """
        if not _ID.fullmatch(project):
            raise invalid("must be 6 to 30 lowercase letters, digits and hyphens.", "projectId")
        if self.is_made(project):
            raise ApiError("ALREADY_EXISTS", "Requested entity already exists")
        names = {*enabled}
        _check_known(names)
        document = {
            "id": project,
            "number": project_number(project),
            "made": True,
            "createTime": clock.now(),
            "enabled": sorted(names),
        }
        self._keep(document)
        return document

    def is_made(self, project: str) -> bool:
        """Return whether a project (its ID or number) was created, so that it begins empty."""
        return bool(self._document(project)["made"])

    def id_of(self, project: str) -> str:
        """Return the ID of a project that is named by its number, and any other name unchanged."""
        known = self._known.get(project)
        return str(known["id"]) if known else project

    def created(self, project: str) -> str:
        """Return when a project was created."""
        return str(self._document(project)["createTime"])

    def is_enabled(self, project: str, api: str) -> bool:
        """Return whether an API is enabled in a project."""
        return api == _ALWAYS or api in self._document(project)["enabled"]

    def check_enabled(self, project: str, api: str) -> None:
        """Raise ApiError PERMISSION_DENIED (SERVICE_DISABLED) unless an API is enabled."""
        if not self.is_enabled(project, api):
            raise apis.disabled(api, project_number(project))

    def api(self, project: str, name: str) -> Api:
        """Return an API of a project; raises ApiError NOT_FOUND.

        In a project that was not created, APIs that are unknown here exist, too.
        """
        title = apis.TITLES.get(name)
        if title is None and self.is_made(project):
            raise ApiError("NOT_FOUND", f"Service {name} not found or permission denied.")
        return Api(name, title or name, title is None or self.is_enabled(project, name))

    def apis(self, project: str) -> list[Api]:
        """Return every API of a project, sorted by name."""
        return [self.api(project, name) for name in sorted(apis.TITLES)]

    def enable(self, project: str, names: list[str]) -> None:
        """Enable APIs: all or none.

        Raises:
            ApiError: PERMISSION_DENIED for an unknown name, FAILED_PRECONDITION without billing.
        """
        self._faults.check_billing(project_number(project), names)
        _check_known(names)
        document = self._document(project)
        self._keep({**document, "enabled": sorted({*document["enabled"], *names})})

    def disable(self, project: str, name: str) -> None:
        """Disable an API; raises ApiError PERMISSION_DENIED for an unknown name."""
        _check_known([name])
        document = self._document(project)
        self._keep({**document, "enabled": sorted({*document["enabled"]} - {name})})

    def _document(self, project: str) -> Document:
        number = project_number(project)
        not_made = {
            "id": project,
            "number": number,
            "made": False,
            "createTime": "2026-01-01T00:00:00.000000Z",
            "enabled": [*apis.TITLES],
        }
        return self._known.get(number, not_made)

    def _keep(self, document: Document) -> None:
        self._store.write(f"known/{document['number']}.json", document)
        self._known[document["number"]] = document


def _check_known(names: Iterable[str]) -> None:
    """Source: the error of `gcloud services enable` for a name with a typing error."""
    unknown = [name for name in names if name not in apis.TITLES]
    if unknown:
        listed = ", ".join(unknown)
        raise ApiError(
            "PERMISSION_DENIED",
            f"Not found or permission denied for service(s): {listed}.",
            [
                error_info(
                    "SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED",
                    "serviceusage.googleapis.com",
                    {"services": listed},
                )
            ],
        )
