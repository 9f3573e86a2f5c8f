"""Stores services, revisions and policies: in memory, and on disk before a write is answered."""

from __future__ import annotations

import asyncio
from typing import Any

from emulator import clock
from emulator.names import Key, project_number
from emulator.policy import UNSET
from emulator.store import Store

Document = dict[str, Any]

SERVICE_LABEL = "serving.knative.dev/service"
GENERATION_LABEL = "serving.knative.dev/configurationGeneration"
LOCATION_LABEL = "cloud.googleapis.com/location"
OPERATION_ANNOTATION = "run.googleapis.com/operation-id"
# How many operations are remembered; the oldest are forgotten first.
_OPERATIONS = 10_000


class Resources:
    """Every stored document of the Admin API. A document passed to `put_…` must not be changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.services: dict[Key, Document] = {}
        self.revisions: dict[Key, Document] = {}
        self._by_service: dict[Key, dict[Key, Document]] = {}
        self._policies: dict[Key, Document] = {}
        self.operations: dict[str, Key] = {}
        self._written = asyncio.Event()
        self._load()

    def _load(self) -> None:
        for entry in self._store.documents("services"):
            key = Key(*entry["key"])
            self.services[key] = entry["document"]
            self._remember(key, entry["document"])
        for entry in self._store.documents("policies"):
            self._policies[Key(*entry["key"])] = entry["document"]
        found: list[tuple[Key, Document]] = []
        for entry in self._store.documents("revisions"):
            key = Key(*entry["key"])
            service = self.services.get(key.sibling(service_of(entry["document"])))
            if service is None or generation_of(entry["document"]) > generation_of(service):
                # The process died between the two files of a write, before it was acknowledged.
                self._store.delete(f"revisions/{key.path}.json")
            else:
                found.append((key, entry["document"]))
        for key, document in sorted(found, key=lambda item: generation_of(item[1])):
            self._index(key, document)

    def put_service(self, key: Key, document: Document) -> None:
        """Store a service; set a new resourceVersion in `document`."""
        self._put("services", self.services, key, document)
        self._remember(key, document)
        self._announce()

    def _remember(self, key: Key, document: Document) -> None:
        operation = document["metadata"].get("annotations", {}).get(OPERATION_ANNOTATION)
        if operation:
            self.operations[operation] = key
        while len(self.operations) > _OPERATIONS:
            del self.operations[next(iter(self.operations))]

    def _announce(self) -> None:
        self._written.set()
        self._written = asyncio.Event()

    async def next_write(self) -> None:
        """Wait until a service is written or deleted."""
        await self._written.wait()

    def put_revision(self, key: Key, document: Document) -> None:
        """Store a revision; set a new resourceVersion in `document`."""
        self._put("revisions", self.revisions, key, document)
        self._index(key, document)

    def _index(self, key: Key, document: Document) -> None:
        self.revisions[key] = document
        self._by_service.setdefault(key.sibling(service_of(document)), {})[key] = document

    def _put(self, kind: str, known: dict[Key, Document], key: Key, document: Document) -> None:
        document["metadata"]["resourceVersion"] = clock.next_version()
        self._store.write(f"{kind}/{key.path}.json", {"key": key, "document": document})
        known[key] = document

    def delete_service(self, key: Key) -> list[Key]:
        """Delete a service, its revisions and its policy; return the revisions' keys."""
        owned = [revision for revision, _ in self.revisions_of(key)]
        self._store.delete(f"services/{key.path}.json")
        del self.services[key]
        for revision in owned:
            self.delete_revision(revision)
        if self._policies.pop(key, None) is not None:
            self._store.delete(f"policies/{key.path}.json")
        self._announce()
        return owned

    def delete_revision(self, key: Key) -> None:
        """Delete a revision."""
        self._store.delete(f"revisions/{key.path}.json")
        service = key.sibling(service_of(self.revisions.pop(key)))
        del self._by_service[service][key]
        if not self._by_service[service]:
            del self._by_service[service]

    def revisions_of(self, service: Key) -> list[tuple[Key, Document]]:
        """Return a service's revisions, oldest first."""
        # They are inserted in the order of creation, and writing one again keeps its position.
        return list(self._by_service.get(service, {}).items())

    def policy(self, key: Key) -> Document:
        """Return the IAM policy of a service; one without bindings if none was set."""
        return self._policies.get(key, UNSET)

    def put_policy(self, key: Key, policy: Document) -> None:
        """Store the IAM policy of a service; set a new etag in `policy`."""
        policy["etag"] = clock.next_version()
        self._store.write(f"policies/{key.path}.json", {"key": key, "document": policy})
        self._policies[key] = policy

    def project_id(self, name: str) -> str:
        """Return the project ID for `name`, which may be the number of a known project."""
        if name.isdigit():
            for key in self.services:
                if project_number(key.project) == name:
                    return key.project
        return name


def service_of(revision: Document) -> str:
    """Return the name of the service that a revision belongs to."""
    name: str = revision["metadata"]["labels"][SERVICE_LABEL]
    return name


def generation_of(document: Document) -> int:
    """Return a service's generation, or that of the service when it made a revision."""
    labels = document["metadata"].get("labels", {})
    return int(labels.get(GENERATION_LABEL, document["metadata"]["generation"]))
