"""Secrets and their versions, on disk.

A secret is a JSON document. The value of each version is a file of its own that only the owner can
read. It is nowhere else: not in the document, in memory or in a listing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypedDict

from emulator import clock, files
from emulator.errors import ApiError, invalid
from emulator.fields import typed
from emulator.names import project_number
from emulator.store import Store

Document = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_LARGEST = 64 * 1024
_SETTABLE = {"annotations", "labels", "replication", "topics", "ttl", "expireTime", "rotation"}
LATEST = "latest"


class _Fields(TypedDict, total=False):
    """The types of a secret's fields."""

    annotations: dict[str, str]
    labels: dict[str, str]
    replication: dict[str, Any]
    topics: list[dict[str, str]]
    ttl: str
    expireTime: str
    rotation: dict[str, str]


class Secrets:
    """The secrets of every project, in `folder`. A project is named by its ID or its number.

    Every method that raises an error raises ApiError; the docstrings name its status.
    """

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)
        self._secrets: dict[tuple[str, str], Document] = {}
        for document in self._store.documents("known"):
            self._secrets[document["project"], document["id"]] = document

    def create(self, project: str, name: str, body: Document) -> Document:
        """Create a secret without a version; raise INVALID_ARGUMENT or ALREADY_EXISTS."""
        if not _NAME.fullmatch(name):
            raise invalid(
                "must use only letters, digits, dashes and underscores, at most 255 of them.",
                "secretId",
            )
        for field in body:
            if field not in _SETTABLE:
                raise invalid(f"Unknown name \"{field}\" at 'secret': Cannot find field.", field)
        body = typed(body, _Fields)
        if "replication" not in body:
            raise invalid("The replication policy is required.", "secret.replication")
        number = project_number(project)
        if (number, name) in self._secrets:
            raise ApiError("ALREADY_EXISTS", f"Secret [projects/{number}/secrets/{name}] already "
                           "exists.")  # fmt: skip
        document: Document = {
            "project": number,
            "id": name,
            "secret": {
                **body,
                "name": f"projects/{number}/secrets/{name}",
                "createTime": clock.now(),
                "etag": f'"{clock.next_version()}"',
            },
            "versions": [],
        }
        self._keep(document)
        return self.get(project, name)

    def get(self, project: str, name: str) -> Document:
        """Return one secret; raise NOT_FOUND."""
        secret: Document = self._known(project, name)["secret"]
        return secret

    def all(self, project: str) -> list[Document]:
        """Return a project's secrets, sorted by name."""
        number = project_number(project)
        return [d["secret"] for (of, _), d in sorted(self._secrets.items()) if of == number]

    def exists(self, project: str, name: str) -> bool:
        """Return whether the secret exists."""
        return (project_number(project), name) in self._secrets

    def patch(self, project: str, name: str, body: Document, mask: str) -> Document:
        """Change the fields that `mask` names; raise NOT_FOUND or INVALID_ARGUMENT."""
        document = self._known(project, name)
        secret, body = dict(document["secret"]), typed(body, _Fields)
        for field in filter(None, mask.split(",")):
            if field not in _SETTABLE - {"replication"}:
                raise invalid(f"'{field}' cannot be changed.", "updateMask")
            secret[field] = body.get(field)
        secret = {field: value for field, value in secret.items() if value is not None}
        secret["etag"] = f'"{clock.next_version()}"'
        self._keep({**document, "secret": secret})
        return secret

    def delete(self, project: str, name: str) -> None:
        """Delete a secret with its versions; raise NOT_FOUND."""
        document = self._known(project, name)
        for number in range(1, len(document["versions"]) + 1):
            self._value_file(document, number).unlink(missing_ok=True)
        self._store.delete(f"known/{document['project']}/{name}.json")
        del self._secrets[document["project"], name]

    def add_version(self, project: str, name: str, value: bytes, *, checked: bool) -> Document:
        """Add a version with a new value, and return it.

        Args:
            project: The secret's project.
            name: The secret's name.
            value: The value, at most 64 KiB.
            checked: Whether the client sent the value's checksum.

        Raises:
            ApiError: NOT_FOUND or INVALID_ARGUMENT.
        """
        document = self._known(project, name)
        if len(value) > _LARGEST:
            raise invalid("The value is larger than 64 KiB.", "payload.data")
        versions: list[Document] = document["versions"]
        version: Document = {
            "name": f"{document['secret']['name']}/versions/{len(versions) + 1}",
            "createTime": clock.now(),
            "state": "ENABLED",
            "replicationStatus": {"automatic": {}},
            "etag": f'"{clock.next_version()}"',
            **({"clientSpecifiedPayloadChecksum": True} if checked else {}),
        }
        # The value first, so that every listed version has one.
        self._write_value(document, len(versions) + 1, value)
        self._keep({**document, "versions": [*versions, version]})
        return version

    def versions(self, project: str, name: str) -> list[Document]:
        """Return a secret's versions, newest first; raise NOT_FOUND."""
        return [*reversed(self._known(project, name)["versions"])]

    def version(self, project: str, name: str, version: str) -> Document:
        """Return one version, by its number or `latest`; raise NOT_FOUND."""
        known = self._secrets.get((project_number(project), name))
        versions: list[Document] = known["versions"] if known else []
        number = str(len(versions)) if version == LATEST else version
        if number not in map(str, range(1, len(versions) + 1)):
            # Google does not report which of the two is missing.
            where = f"projects/{project_number(project)}/secrets/{name}"
            raise ApiError(
                "NOT_FOUND",
                f"Secret [{where}] not found or has no versions."
                if version == LATEST or not known
                else f"Secret Version [{where}/versions/{version}] not found.",
            )
        return versions[int(number) - 1]

    def set_state(self, project: str, name: str, version: str, state: str) -> Document:
        """Make a version ENABLED, DISABLED or DESTROYED, which is final.

        Raises:
            ApiError: NOT_FOUND, or FAILED_PRECONDITION for a version that is destroyed.
        """
        found = self.version(project, name, version)
        if found["state"] == "DESTROYED" and state != "DESTROYED":
            raise _in_state(found)
        document = self._known(project, name)
        changed = {**found, "state": state, "etag": f'"{clock.next_version()}"'}
        if state == "DESTROYED":
            changed.setdefault("destroyTime", clock.now())
        versions = [changed if one is found else one for one in document["versions"]]
        self._keep({**document, "versions": versions})
        if state == "DESTROYED":
            number = int(changed["name"].rpartition("/")[2])
            self._value_file(document, number).unlink(missing_ok=True)
        return changed

    def value(self, project: str, name: str, version: str) -> tuple[str, bytes]:
        """Return a version's full name and its value; raise NOT_FOUND or FAILED_PRECONDITION."""
        known = self.version(project, name, version)
        if known["state"] != "ENABLED":
            raise _in_state(known)
        found: str = known["name"]
        file = self._value_file(self._known(project, name), int(found.rpartition("/")[2]))
        return found, file.read_bytes()

    def _known(self, project: str, name: str) -> Document:
        number = project_number(project)
        try:
            return self._secrets[number, name]
        except KeyError:
            raise ApiError(
                "NOT_FOUND", f"Secret [projects/{number}/secrets/{name}] not found."
            ) from None

    def _keep(self, document: Document) -> None:
        self._store.write(f"known/{document['project']}/{document['id']}.json", document)
        self._secrets[document["project"], document["id"]] = document

    def _value_file(self, document: Document, number: int) -> Path:
        path = f"values/{document['project']}/{document['id']}/{number}"
        return files.inside(self._store.root, path)

    def _write_value(self, document: Document, number: int, value: bytes) -> None:
        file = self._value_file(document, number)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write(file, value, mode=0o600)


def _in_state(version: Document) -> ApiError:
    name, state = version["name"], version["state"]
    return ApiError("FAILED_PRECONDITION", f"Secret Version [{name}] is in {state} state.")
