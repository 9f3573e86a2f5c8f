"""The Admin API without HTTP: reads, writes and deletes services and revisions.

No method awaits: each is one step of the event loop, so that two writers never interleave. A write
is checked against the current resourceVersion, stored, and only then acknowledged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from emulator.errors import ApiError, invalid
from emulator.names import Key
from emulator.run import (
    conditions,
    defaults,
    documents,
    limits,
    schema,
    service_rules,
    traffic_rules,
)
from emulator.run.conditions import UNKNOWN, State
from emulator.run.resources import LOCATION_LABEL, SERVICE_LABEL, Resources

Document = dict[str, Any]

_PENDING = State(UNKNOWN, "Deploying", "Deploying revision.")
_ROUTING = State(UNKNOWN, "RouteMissing", "Configuring traffic.")


class Plan(NamedTuple):
    """A checked write: the new document of the service, and of the revision to create, if any."""

    service: Document
    revision: tuple[Key, Document] | None


class Admin:
    """The services and revisions of every project and region.

    `changed(service)` is called after a service was written, `removed(service, revisions)` after
    it or some of its revisions were deleted. `logs_url(revision)` is the URL of a revision's logs.
    Methods that fail raise ApiError; the docstrings name its status.
    """

    def __init__(
        self,
        resources: Resources,
        *,
        changed: Callable[[Key], None],
        removed: Callable[[Key, list[Key]], None],
        logs_url: Callable[[Key], str],
    ) -> None:
        self.resources = resources
        self._changed = changed
        self._removed = removed
        self._logs_url = logs_url

    def service(self, key: Key) -> Document:
        """Return one service; raise NOT_FOUND."""
        try:
            return self.resources.services[key]
        except KeyError:
            raise _missing(key, "Service") from None

    def revision(self, key: Key) -> Document:
        """Return one revision with its Active condition; raise NOT_FOUND."""
        try:
            document = self.resources.revisions[key]
        except KeyError:
            raise _missing(key, "Revision") from None
        return self._with_activity(key, document)

    def services(self, project: str, region: str | None) -> list[Document]:
        """Return a project's services, sorted; of all regions if `region` is None."""
        return [
            document
            for key, document in sorted(self.resources.services.items())
            if key.project == project and region in (None, key.region)
        ]

    def revisions(self, project: str, region: str | None) -> list[Document]:
        """Return a project's revisions, newest first; of all regions if `region` is None.

        They lack the Active condition: `shown` adds it to those that are sent to the client.
        """
        found = [
            document
            for key, document in self.resources.revisions.items()
            if key.project == project and region in (None, key.region)
        ]
        found.sort(key=lambda item: str(item["metadata"]["name"]))
        found.sort(key=lambda item: str(item["metadata"]["creationTimestamp"]), reverse=True)
        return found

    def create(self, key: Key, body: Document, *, dry_run: bool) -> Document:
        """Create a service; raise INVALID_ARGUMENT or ALREADY_EXISTS."""
        sent = service_rules.service(body, key)
        if key in self.resources.services:
            raise ApiError("ALREADY_EXISTS", f"Resource '{key.name}' already exists.")
        assert sent.metadata is not None
        if sent.metadata.resource_version:
            raise invalid("must not be set when creating.", "metadata.resourceVersion")
        return self._write(key, self._plan(key, sent, None), dry_run=dry_run)

    def replace(self, key: Key, body: Document, *, dry_run: bool) -> Document:
        """Replace a service.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS (another revision has the name),
                or ABORTED (the body's resourceVersion is not the current one).
        """
        current = self.service(key)
        sent = service_rules.service(body, key)
        assert sent.metadata is not None
        version = sent.metadata.resource_version
        if version and version != current["metadata"]["resourceVersion"]:
            raise ApiError(
                "ABORTED",
                f"Conflict for resource '{key.name}': version '{version}' was specified but "
                f"current version is '{current['metadata']['resourceVersion']}'.",
            )
        return self._write(key, self._plan(key, sent, current), dry_run=dry_run)

    def delete(self, key: Key, *, dry_run: bool) -> None:
        """Delete a service with its revisions; raise NOT_FOUND."""
        self.service(key)
        if not dry_run:
            self._removed(key, self.resources.delete_service(key))

    def delete_revision(self, key: Key, *, dry_run: bool) -> None:
        """Delete a revision that is not in use; raise NOT_FOUND or FAILED_PRECONDITION.

        Source: https://cloud.google.com/run/docs/managing/revisions#delete (which cannot be).
        """
        document = self.revision(key)
        owner = key.sibling(document["metadata"]["labels"][SERVICE_LABEL])
        service = self.service(owner)
        targets = [*service["spec"]["traffic"], *service["status"].get("traffic", [])]
        if any(target.get("revisionName") == key.name for target in targets):
            why = "it is serving traffic or has a tag"
        elif service["status"].get("latestCreatedRevisionName") == key.name:
            why = "it is the latest created revision"
        elif service["status"].get("latestReadyRevisionName") == key.name:
            why = "it is the latest ready revision"
        else:
            if not dry_run:
                self.resources.delete_revision(key)
                self._removed(owner, [key])
            return
        raise ApiError(
            "FAILED_PRECONDITION", f"Revision '{key.name}' cannot be deleted because {why}."
        )

    def _plan(self, key: Key, sent: schema.Service, current: Document | None) -> Plan:
        assert sent.spec is not None
        assert sent.spec.template is not None
        template = defaults.filled_in(schema.plain(sent.spec.template), key.project)
        name, is_new = self._revision_name(key, template, current)
        known = {revision.name for revision, _ in self.resources.revisions_of(key)}
        traffic = traffic_rules.plan(sent.spec.traffic, known | {name}, key.name)
        if current is None:
            service = documents.new_service(key, sent, template, traffic)
        else:
            service = copy.deepcopy(current)
            documents.put_metadata(service, key, sent)
            spec = {"template": template, "traffic": traffic}
            if is_new or spec != service["spec"]:
                service["metadata"]["generation"] += 1
            service["spec"] = spec
        self._announce(service, current, name)
        if not is_new:
            return Plan(service, None)
        revision = key.sibling(name)
        logs = self._logs_url(revision)
        return Plan(service, (revision, documents.new_revision(revision, service, template, logs)))

    def _revision_name(
        self, key: Key, template: Document, current: Document | None
    ) -> tuple[str, bool]:
        """Return the name of the revision that `template` describes, and whether it is new."""
        name = template.get("metadata", {}).get("name")
        if name:
            existing = self.resources.revisions.get(key.sibling(name))
            if existing is None:
                return name, True
            made_from = self._template_of(key, existing)
            if made_from is None or not defaults.same_content(made_from, template):
                raise ApiError(
                    "ALREADY_EXISTS",
                    f"Revision named '{name}' with different configuration already exists.",
                )
            return name, False
        if current is None:
            return documents.generated_name(key.name, 1), True
        latest = current["status"]["latestCreatedRevisionName"]
        if defaults.same_content(current["spec"]["template"], template):
            return latest, False
        return documents.generated_name(key.name, current["metadata"]["generation"] + 1), True

    def _template_of(self, key: Key, revision: Document) -> Document | None:
        """Return the template of a revision; None if it is not a revision of the service `key`."""
        labels = revision["metadata"]["labels"]
        if labels[SERVICE_LABEL] != key.name:
            return None
        users = {k: v for k, v in labels.items() if k not in documents.REVISION_LABELS}
        annotations = {
            k: v
            for k, v in revision["metadata"]["annotations"].items()
            if k not in documents.REVISION_ANNOTATIONS
        }
        return {
            "metadata": {"labels": users, "annotations": annotations},
            "spec": revision["spec"],
        }

    def _announce(self, service: Document, current: Document | None, revision: str) -> None:
        """Set the status that a client sees until the service is reconciled."""
        status = service["status"]
        before = current or {"spec": {}, "status": {}}
        status["observedGeneration"] = service["metadata"]["generation"]
        if before["status"].get("latestCreatedRevisionName") != revision:
            status["latestCreatedRevisionName"] = revision
            conditions.put(service, "Ready", _PENDING)
            conditions.put(service, "ConfigurationsReady", _PENDING)
        if before["spec"].get("traffic") != service["spec"]["traffic"] or current is None:
            conditions.put(service, "Ready", _ROUTING if current else _PENDING)
            conditions.put(service, "RoutesReady", _ROUTING if current else _PENDING)

    def _write(self, key: Key, plan: Plan, *, dry_run: bool) -> Document:
        if dry_run:
            return plan.service
        if plan.revision is not None:
            # The revision first, so that a service never names one that does not exist.
            self.resources.put_revision(*plan.revision)
        self.resources.put_service(key, plan.service)
        self._changed(key)
        self._keep_limits(key)
        return plan.service

    def _keep_limits(self, key: Key) -> None:
        """Delete the revisions and tags that exceed the limits after a write."""
        resources = self.resources
        service = resources.services[key]
        surplus = limits.surplus_revisions(service, resources.revisions_of(key))
        for revision in surplus:
            resources.delete_revision(revision)
        if surplus:
            self._removed(key, surplus)
        self._keep_tags(key)

    def _keep_tags(self, written: Key) -> None:
        near = [(k, s) for k, s in self.resources.services.items() if k[:2] == written[:2]]
        if sum(len(service["spec"]["traffic"]) for _, service in near) <= limits.TAGS:
            return
        made = {
            key: str(document["metadata"]["creationTimestamp"])
            for key, document in self.resources.revisions.items()
        }
        surplus = limits.surplus_tags(near, made)
        for key in {key for key, _ in surplus}:
            service = copy.deepcopy(self.resources.services[key])
            dropped = {tag for of, tag in surplus if of == key}
            service["spec"]["traffic"] = limits.without_tags(service["spec"]["traffic"], dropped)
            service["metadata"]["generation"] += 1
            self.resources.put_service(key, service)
            self._changed(key)

    def shown(self, project: str, document: Document) -> Document:
        """Return a revision of a project as it is sent to the client: with its Active condition."""
        metadata = document["metadata"]
        place = metadata["labels"][LOCATION_LABEL]
        return self._with_activity(Key(project, place, metadata["name"]), document)

    def _with_activity(self, key: Key, document: Document) -> Document:
        owner = key.sibling(document["metadata"]["labels"][SERVICE_LABEL])
        service = self.resources.services[owner]
        traffic = service["status"].get("traffic", [])
        if any(target.get("revisionName") == key.name for target in traffic):
            state = State("True")
        elif conditions.get(document, "Ready").status == UNKNOWN:
            state = _PENDING
        else:
            state = State("False", "Retired", "Revision retired.")
        status = document["status"]
        shown = {**document, "status": {**status, "conditions": [*status["conditions"]]}}
        # It last changed when the service's routes did.
        conditions.put(shown, "Active", state, since=conditions.since(service, "RoutesReady"))
        return shown


def _missing(key: Key, kind: str) -> ApiError:
    return ApiError("NOT_FOUND", f"{kind} '{key.name}' does not exist.")
