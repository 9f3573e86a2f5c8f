"""Triggers of Cloud Build, by project and region. Every repository counts as connected."""

from __future__ import annotations

import re
import uuid
from typing import Any, TypedDict

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.fields import typed
from emulator.names import project_number
from emulator.store import Store

Document = dict[str, Any]

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?")
_FIXED = {"createTime", "id", "resourceName"}
# Where the build comes from: a trigger has one of them.
_TEMPLATES = ("build", "filename", "gitFileSource", "autodetect")


class _Fields(TypedDict, total=False):
    """The types of a trigger's fields."""

    name: str
    description: str
    tags: list[str]
    disabled: bool
    substitutions: dict[str, str]
    ignoredFiles: list[str]
    includedFiles: list[str]
    filter: str
    filename: str
    serviceAccount: str
    autodetect: bool
    build: Document
    github: Document
    gitFileSource: Document


class Triggers:
    """The triggers of every project and region. A project is named by its ID or its number."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str], Document] = {}
        for entry in store.documents("triggers"):
            key = (entry["number"], entry["region"], entry["trigger"]["id"])
            self._known[key] = entry["trigger"]

    def create(self, project: str, region: str, body: Document) -> Document:
        """Create a trigger, whose name is unique in its region.

        Raises:
            ApiError: INVALID_ARGUMENT, ALREADY_EXISTS.
        """
        number = project_number(project)
        sent = typed(body, _Fields)
        fields = {name: value for name, value in sent.items() if name not in _FIXED}
        identity = str(uuid.uuid4())
        fields.setdefault("name", f"trigger-{identity[:8]}")
        _check(fields)
        if any(one["name"] == fields["name"] for one in self._of(number, region)):
            raise ApiError(
                "ALREADY_EXISTS",
                f"trigger in project {number} with name {fields['name']} already exists",
            )
        trigger = {
            **fields,
            "id": identity,
            "createTime": clock.now(),
            "resourceName": f"projects/{number}/locations/{region}/triggers/{identity}",
        }
        return self._keep(number, region, trigger)

    def get(self, project: str, region: str, trigger: str) -> Document:
        """Return a trigger by its ID or its name; raises ApiError NOT_FOUND."""
        for one in self._of(project_number(project), region):
            if trigger in (one["id"], one["name"]):
                return one
        raise ApiError("NOT_FOUND", "Requested entity was not found.")

    def all(self, project: str, region: str) -> list[Document]:
        """Return a region's triggers, sorted by name."""
        return sorted(self._of(project_number(project), region), key=lambda one: str(one["name"]))

    def patch(self, project: str, region: str, trigger: str, body: Document, mask: str) -> Document:
        """Change the fields of a trigger that `mask` names; without one, those in the body.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND.
        """
        current, body = self.get(project, region, trigger), typed(body, _Fields)
        names = {part.partition(".")[0] for part in mask.split(",") if part} or {*body}
        changed = {name: value for name, value in current.items() if name not in names - _FIXED}
        changed |= {name: body[name] for name in names - _FIXED if name in body}
        if new := [name for name in _TEMPLATES if name in names and changed.get(name)]:
            changed = {k: v for k, v in changed.items() if k in new or k not in _TEMPLATES}
        _check(changed)
        return self._keep(project_number(project), region, changed)

    def delete(self, project: str, region: str, trigger: str) -> None:
        """Delete a trigger; raises ApiError NOT_FOUND."""
        number = project_number(project)
        found = self.get(project, region, trigger)
        self._store.delete(_file(number, region, found["id"]))
        del self._known[number, region, found["id"]]

    def _of(self, number: str, region: str) -> list[Document]:
        return [one for key, one in self._known.items() if key[:2] == (number, region)]

    def _keep(self, number: str, region: str, trigger: Document) -> Document:
        entry = {"number": number, "region": region, "trigger": trigger}
        self._store.write(_file(number, region, trigger["id"]), entry)
        self._known[number, region, trigger["id"]] = trigger
        return trigger


def _file(number: str, region: str, identity: str) -> str:
    return f"triggers/{number}/{region}/{identity}.json"


def _check(trigger: Document) -> None:
    if not _NAME.fullmatch(trigger.get("name", "")):
        raise invalid("must be 1 to 64 letters, digits and hyphens.", "name")
    if sum(bool(trigger.get(field)) for field in _TEMPLATES) != 1:
        raise invalid("one of build, filename and gitFileSource is required.", "trigger")
    if not trigger.get("serviceAccount"):
        # Google requires it since 2024 in projects without Cloud Build's legacy account.
        raise invalid(
            "service account must be specified. For more information, see "
            "https://cloud.google.com/build/docs/cloud-build-service-account-updates",
        )
