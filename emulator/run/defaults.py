"""The defaults that Cloud Run fills in, so that templates with the same meaning compare equal."""

from __future__ import annotations

import copy
from typing import Any

from emulator.names import default_service_account

# Google's own clients write these on every call. They name the client, not the desired state.
_CALLER = ("run.googleapis.com/client-name", "run.googleapis.com/client-version")


def filled_in(template: dict[str, Any], project: str) -> dict[str, Any]:
    """Return a copy of a revision template with Cloud Run's defaults for the omitted fields.

    Source: https://cloud.google.com/run/docs/reference/yaml/v1 (defaults of each field).
    """
    result = copy.deepcopy(template)
    spec = result.setdefault("spec", {})
    spec.setdefault("containerConcurrency", 80)
    spec.setdefault("timeoutSeconds", 300)
    spec.setdefault("serviceAccountName", default_service_account(project))
    for container in spec.get("containers", []):
        limits = container.setdefault("resources", {}).setdefault("limits", {})
        limits.setdefault("cpu", "1000m")
        limits.setdefault("memory", "512Mi")
    index = ingress_index(spec)
    ingress = spec["containers"][index]
    ports = ingress.setdefault("ports", [])
    if not ports:
        ports.append({})
    ports[0].setdefault("containerPort", 8080)
    ports[0].setdefault("name", "http1")
    port = ports[0]["containerPort"]
    # A sidecar has no default probe.
    startup = {"failureThreshold": 1, "periodSeconds": 240, "timeoutSeconds": 240}
    ingress.setdefault("startupProbe", {**startup, "tcpSocket": {"port": port}})
    for container in spec["containers"]:
        for kind in ("startupProbe", "livenessProbe"):
            if kind in container:
                _fill_in_probe(container[kind], port)
    return result


def _fill_in_probe(probe: dict[str, Any], port: int) -> None:
    probe.setdefault("failureThreshold", 3)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("timeoutSeconds", 1)
    action = probe.get("httpGet", probe.get("grpc", probe.get("tcpSocket")))
    if action is None:
        action = probe["tcpSocket"] = {}
    action.setdefault("port", port)
    if "httpGet" in probe:
        action.setdefault("path", "/")


def ingress_index(spec: dict[str, Any]) -> int:
    """Return the index of the container that takes the requests: the one with a port, or 0."""
    containers = spec.get("containers", [])
    for index, container in enumerate(containers):
        if container.get("ports"):
            return index
    return 0


def same_content(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two filled-in templates describe the same revision; names do not count."""
    return bool(_content(one) == _content(other))


def _content(template: dict[str, Any]) -> Any:
    metadata = template.get("metadata", {})
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k not in _CALLER}
    return annotations, metadata.get("labels", {}), _without_empty(template["spec"])


def _without_empty(value: Any) -> Any:
    """Drop empty values. To Google's APIs they are absent; exports write some fields empty."""
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [], "")}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
