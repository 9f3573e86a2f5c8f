"""The documents of services and revisions: the client's fields and those that Cloud Run adds."""

from __future__ import annotations

import random
import uuid
from typing import Any

from emulator import clock
from emulator.names import Key, project_number
from emulator.run import conditions, schema
from emulator.run.conditions import UNKNOWN, State
from emulator.run.defaults import ingress_index
from emulator.run.resources import (
    GENERATION_LABEL,
    LOCATION_LABEL,
    OPERATION_ANNOTATION,
    SERVICE_LABEL,
)

Document = dict[str, Any]
API_VERSION = "serving.knative.dev/v1"
_CALLER = "developer@localhost"

# Annotations that Cloud Run writes itself. A client's values for them are ignored.
_SYSTEM = (
    "serving.knative.dev/creator",
    "serving.knative.dev/lastModifier",
    "run.googleapis.com/ingress-status",
    OPERATION_ANNOTATION,
    "run.googleapis.com/urls",
)

# The labels and annotations that Cloud Run adds to those of a revision's template.
REVISION_LABELS = (
    LOCATION_LABEL,
    SERVICE_LABEL,
    GENERATION_LABEL,
    "serving.knative.dev/configuration",
    "serving.knative.dev/serviceUid",
    "run.googleapis.com/startupProbeType",
)
REVISION_ANNOTATIONS = ("serving.knative.dev/creator",)


def new_service(
    key: Key, sent: schema.Service, template: Document, plan: list[Document]
) -> Document:
    """Return the document of a new service: generation 1, no condition yet."""
    document: Document = {
        "apiVersion": API_VERSION,
        "kind": "Service",
        "metadata": {
            "name": key.name,
            "namespace": project_number(key.project),
            "selfLink": self_link(key, "services"),
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": clock.now(),
            "labels": {},
            "annotations": {"serving.knative.dev/creator": _CALLER},
        },
        "spec": {"template": template, "traffic": plan},
        "status": {},
    }
    put_metadata(document, key, sent)
    return document


def put_metadata(document: Document, key: Key, sent: schema.Service) -> None:
    """Copy the client's labels and annotations into a service's document."""
    metadata = document["metadata"]
    assert sent.metadata is not None
    creator = metadata["annotations"]["serving.knative.dev/creator"]
    users = {k: v for k, v in (sent.metadata.annotations or {}).items() if k not in _SYSTEM}
    urls = metadata["annotations"].get("run.googleapis.com/urls")
    ingress = users.setdefault("run.googleapis.com/ingress", "all")
    metadata["labels"] = {**(sent.metadata.labels or {}), LOCATION_LABEL: key.region}
    metadata["annotations"] = {
        **users,
        "serving.knative.dev/creator": creator,
        "serving.knative.dev/lastModifier": _CALLER,
        "run.googleapis.com/ingress-status": ingress,
        OPERATION_ANNOTATION: str(uuid.uuid4()),
        **({"run.googleapis.com/urls": urls} if urls else {}),
    }


def new_revision(key: Key, service: Document, template: Document, logs: str) -> Document:
    """Return the document of a new revision.

    Args:
        key: The revision.
        service: The document of its service, whose current generation makes the revision.
        template: The service's template, with defaults filled in.
        logs: The URL of the revision's logs.
    """
    metadata = service["metadata"]
    sent = template.get("metadata", {})
    spec = template["spec"]
    probe = spec["containers"][ingress_index(spec)].get("startupProbe", {})
    labels = {
        **sent.get("labels", {}),
        LOCATION_LABEL: key.region,
        SERVICE_LABEL: metadata["name"],
        "serving.knative.dev/configuration": metadata["name"],
        GENERATION_LABEL: str(metadata["generation"]),
        "serving.knative.dev/serviceUid": metadata["uid"],
        "run.googleapis.com/startupProbeType": (
            "Default" if probe.get("periodSeconds") == 240 else "Custom"
        ),
    }
    document: Document = {
        "apiVersion": API_VERSION,
        "kind": "Revision",
        "metadata": {
            "name": key.name,
            "namespace": project_number(key.project),
            "selfLink": self_link(key, "revisions"),
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": clock.now(),
            "labels": labels,
            "annotations": {
                **sent.get("annotations", {}),
                "serving.knative.dev/creator": _CALLER,
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "Configuration",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template["spec"],
        "status": {"observedGeneration": 1, "logUrl": logs},
    }
    for kind in ("Ready", "ContainerHealthy", "ContainerReady", "ResourcesAvailable"):
        conditions.put(document, kind, State(UNKNOWN, "Deploying", "Deploying revision."))
    return document


def generated_name(service: str, generation: int) -> str:
    """Return a revision name in Cloud Run's form: `service-00007-kwf`."""
    letters = "".join(random.choices("bcdfghjklmnpqrstvwxz", k=3))  # noqa: S311 - not a secret
    return f"{service}-{generation:05d}-{letters}"


def self_link(key: Key, kind: str) -> str:
    """Return `metadata.selfLink` of a resource; `kind` is the plural, such as `services`."""
    number = project_number(key.project)
    return f"/apis/{API_VERSION}/namespaces/{number}/{kind}/{key.name}"


def configuration(service: Document) -> Document:
    """Return the Configuration that a service owns: its template and its latest revisions."""
    ready = conditions.get(service, "ConfigurationsReady")
    status = {
        name: service["status"][name]
        for name in ("observedGeneration", "latestCreatedRevisionName", "latestReadyRevisionName")
        if name in service["status"]
    }
    owned = _owned(service, "Configuration", "configurations", ready, status)
    owned["spec"] = {"template": service["spec"]["template"]}
    return owned


def route(service: Document) -> Document:
    """Return the Route that a service owns: its traffic."""
    ready = conditions.get(service, "RoutesReady")
    status = {
        name: service["status"][name]
        for name in ("observedGeneration", "traffic", "url", "address")
        if name in service["status"]
    }
    owned = _owned(service, "Route", "routes", ready, status)
    owned["spec"] = {"traffic": service["spec"]["traffic"]}
    return owned


def _owned(service: Document, kind: str, plural: str, ready: State, status: Document) -> Document:
    metadata = service["metadata"]
    kept = ("name", "namespace", "generation", "creationTimestamp", "resourceVersion", "uid")
    document: Document = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            **{name: metadata[name] for name in kept},
            "selfLink": metadata["selfLink"].replace("/services/", f"/{plural}/"),
            "labels": {**metadata["labels"], SERVICE_LABEL: metadata["name"]},
        },
        "spec": {},
        "status": status,
    }
    conditions.put(document, "Ready", ready)
    return document
