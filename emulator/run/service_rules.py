"""The rules for a Service and its template, beyond their shape."""

from __future__ import annotations

import re
from typing import Any

from emulator.errors import invalid
from emulator.names import Key, project_number
from emulator.run import quantities, schema, sidecars
from emulator.run.metadata_rules import check_metadata, check_revision_name, check_service_name

Document = dict[str, Any]

_RESERVED_ENV = frozenset({"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"})


def service(document: Document, key: Key) -> schema.Service:
    """Return a document as the Service `key`; raise a 400 ApiError that names the invalid field."""
    parsed = schema.service(document)
    if parsed.api_version != "serving.knative.dev/v1":
        raise invalid("Expected 'serving.knative.dev/v1'.", "apiVersion")
    if parsed.kind != "Service":
        raise invalid("Expected 'Service'.", "kind")
    if parsed.metadata is None or not parsed.metadata.name:
        raise invalid("The name is required.", "metadata.name")
    if parsed.metadata.name != key.name:
        raise invalid(f"Expected '{key.name}', as in the request's URL.", "metadata.name")
    check_service_name(key.name)
    owners = (None, key.project, project_number(key.project))
    if parsed.metadata.namespace not in owners:
        raise invalid(f"Expected '{key.project}', as in the request's URL.", "metadata.namespace")
    if parsed.spec is None or parsed.spec.template is None or parsed.spec.template.spec is None:
        raise invalid("The template is required.", "spec.template.spec")
    check_metadata(parsed.metadata, "metadata")
    check_metadata(parsed.spec.template.metadata, "spec.template.metadata")
    _check_template(parsed.spec.template, key.name)
    return parsed


def _check_template(template: schema.RevisionTemplate, service_name: str) -> None:
    name = template.metadata.name if template.metadata else None
    if name:
        check_revision_name(name, service_name)
    spec = template.spec
    assert spec is not None
    where = "spec.template.spec"
    if not spec.containers:
        raise invalid("At least one container is required.", f"{where}.containers")
    sidecars.check(template, service_name)
    if spec.timeout_seconds is not None and not 1 <= spec.timeout_seconds <= 3600:
        raise invalid("must be between 1 and 3600.", f"{where}.timeoutSeconds")
    if spec.container_concurrency is not None and not 0 <= spec.container_concurrency <= 1000:
        raise invalid("must be between 1 and 1000.", f"{where}.containerConcurrency")
    for index, container in enumerate(spec.containers):
        alone = len(spec.containers) == 1
        _check_container(container, f"{where}.containers[{index}]", alone=alone)


def _check_container(container: schema.Container, where: str, *, alone: bool) -> None:
    if not container.image:
        raise invalid("The image is required.", f"{where}.image")
    if container.ports and len(container.ports) > 1:
        raise invalid("A container has at most one port.", f"{where}.ports")
    for port in container.ports or []:
        if port.container_port is not None and not 1 <= port.container_port <= 65535:
            raise invalid("must be between 1 and 65535.", f"{where}.ports[0].containerPort")
        if port.name not in (None, "", "http1", "h2c"):
            raise invalid("must be 'http1' or 'h2c'.", f"{where}.ports[0].name")
    names: set[str] = set()
    for index, variable in enumerate(container.env or []):
        field = f"{where}.env[{index}].name"
        if not variable.name:
            raise invalid("The name is required.", field)
        if variable.name in _RESERVED_ENV:
            raise invalid(f"The environment variable '{variable.name}' is reserved.", field)
        if variable.name in names:
            raise invalid(f"'{variable.name}' is given twice.", field)
        names.add(variable.name)
        _check_source(variable, f"{where}.env[{index}]")
    limits = container.resources.limits if container.resources else None
    for name in ("cpu", "memory"):
        try:
            quantities.amount((limits or {}).get(name, "1"))
        except ValueError:
            raise invalid("is not a quantity.", f"{where}.resources.limits.{name}") from None
    listens = alone or bool(container.ports)
    if container.startup_probe:
        _check_probe(container.startup_probe, f"{where}.startupProbe", 240, listens=listens)
    if container.liveness_probe:
        _check_probe(container.liveness_probe, f"{where}.livenessProbe", 3600, listens=listens)


def _check_source(variable: schema.EnvVar, where: str) -> None:
    source = variable.value_from
    if source is None:
        return
    if variable.value:
        raise invalid("Only one of value and valueFrom may be given.", where)
    reference = source.secret_key_ref
    if reference is None:
        raise invalid("Only secretKeyRef is supported.", f"{where}.valueFrom")
    if not re.fullmatch(r"[\w-]{1,255}", reference.name or "", re.ASCII):
        raise invalid("must be a secret's name.", f"{where}.valueFrom.secretKeyRef.name")
    if not re.fullmatch(r"latest|[1-9]\d*", reference.key or ""):
        raise invalid(
            "must be a version's number or 'latest'.", f"{where}.valueFrom.secretKeyRef.key"
        )


def _check_probe(probe: schema.Probe, where: str, longest: int, *, listens: bool) -> None:
    actions = [probe.http_get, probe.tcp_socket, probe.grpc]
    if sum(action is not None for action in actions) > 1 or probe.exec is not None:
        raise invalid("Exactly one of httpGet, tcpSocket and grpc is supported.", where)
    action = probe.http_get or probe.tcp_socket or probe.grpc
    if not listens and (action is None or action.port is None):
        # From memory: a sidecar has no port that could be the default.
        raise invalid("The port is required in the probe of a sidecar.", where)
    period = probe.period_seconds if probe.period_seconds is not None else 10
    limits = (
        ("initialDelaySeconds", probe.initial_delay_seconds, 0, longest),
        ("periodSeconds", probe.period_seconds, 1, longest),
        ("timeoutSeconds", probe.timeout_seconds, 1, min(longest, period)),
        ("failureThreshold", probe.failure_threshold, 1, 240),
    )
    for name, value, low, high in limits:
        if value is not None and not low <= value <= high:
            raise invalid(f"must be between {low} and {high}.", f"{where}.{name}")
