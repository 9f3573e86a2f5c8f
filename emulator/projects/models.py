"""Which projects there are, and which APIs are enabled in each.

Any project may be asked about, and is taken for granted: all its APIs are enabled, and whatever
repository or service account is named in it is there. A project that was *made* (`POST
/_local/projects`) is as bare as a new one at Google's: what nobody enabled or created is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.names import project_number
from emulator.projects import apis
from emulator.store import Store

Document = dict[str, Any]

_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
# Answers whether it is enabled or not: how else would it enable anything?
_ALWAYS = "serviceusage.googleapis.com"


class Projects:
    """The projects that were made, and those whose APIs were changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Document] = {
            document["number"]: document for document in store.documents("known")
        }

    def make(self, project: str, enabled: Iterable[str]) -> Document:
        """Make a bare project; raises ApiError (INVALID_ARGUMENT, ALREADY_EXISTS)."""
        if not _ID.fullmatch(project):
            raise invalid("must be 6 to 30 lowercase letters, digits and hyphens.", "projectId")
        if self.is_made(project):
            raise ApiError("ALREADY_EXISTS", "Requested entity already exists")
        apis_enabled = [*enabled]
        _check_known(apis_enabled)
        document = {
            "id": project,
            "number": project_number(project),
            "made": True,
            "createTime": clock.now(),
            "enabled": sorted({*apis_enabled}),
        }
        self._keep(document)
        return document

    def is_made(self, project: str) -> bool:
        """Whether nothing in a project (its ID or number) may be taken for granted."""
        return bool(self._document(project)["made"])

    def id_of(self, project: str) -> str:
        """The ID of a project that goes by its number; any other name as it is."""
        known = self._known.get(project)
        return str(known["id"]) if known else project

    def created(self, project: str) -> str:
        """When a project was created."""
        return str(self._document(project)["createTime"])

    def is_enabled(self, project: str, api: str) -> bool:
        """Whether an API is enabled in a project."""
        return api == _ALWAYS or api in self._document(project)["enabled"]

    def check_enabled(self, project: str, api: str) -> None:
        """Raise PERMISSION_DENIED (SERVICE_DISABLED) unless an API is enabled in a project."""
        if not self.is_enabled(project, api):
            raise apis.disabled(api, project_number(project))

    def enable(self, project: str, names: list[str]) -> None:
        """Enable APIs; raises ApiError NOT_FOUND for names that are none."""
        _check_known(names)
        document = self._document(project)
        self._keep({**document, "enabled": sorted({*document["enabled"], *names})})

    def disable(self, project: str, name: str) -> None:
        """Disable an API; raises ApiError NOT_FOUND for a name that is none."""
        _check_known([name])
        document = self._document(project)
        self._keep({**document, "enabled": sorted({*document["enabled"]} - {name})})

    def _document(self, project: str) -> Document:
        number = project_number(project)
        taken_for_granted = {
            "id": project,
            "number": number,
            "made": False,
            "createTime": "2026-01-01T00:00:00.000000Z",
            "enabled": [*apis.TITLES],
        }
        return self._known.get(number, taken_for_granted)

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
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED",
                    "domain": "serviceusage.googleapis.com",
                    "metadata": {"services": listed},
                }
            ],
        )
