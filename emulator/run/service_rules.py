"""What a Service has to satisfy beyond its shape."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from emulator.errors import ApiError, invalid
from emulator.names import Key, project_number
from emulator.run import scale, schema
from emulator.run.metadata_rules import check_metadata

# RFC 1035 label, as Cloud Run asks of service names, revision names and tags.
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_RESERVED_ENV = frozenset({"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"})


def service(document: Any, key: Key) -> schema.Service:
    """`document` checked as the Service `key`; raises a 400 ApiError that names the field."""
    if not isinstance(document, dict):
        raise invalid("The request body must be a JSON object.")
    parsed = schema.service(document)
    if parsed.api_version != "serving.knative.dev/v1":
        raise invalid("Expected 'serving.knative.dev/v1'.", "apiVersion")
    if parsed.kind != "Service":
        raise invalid("Expected 'Service'.", "kind")
    if parsed.metadata is None or not parsed.metadata.name:
        raise invalid("The name is required.", "metadata.name")
    if parsed.metadata.name != key.name:
        raise invalid(f"Expected '{key.name}', as in the request's URL.", "metadata.name")
    _check_service_name(key.name)
    owners = (None, key.project, project_number(key.project))
    if parsed.metadata.namespace not in owners:
        raise invalid(f"Expected '{key.project}', as in the request's URL.", "metadata.namespace")
    if parsed.spec is None or parsed.spec.template is None or parsed.spec.template.spec is None:
        raise invalid("The template is required.", "spec.template.spec")
    check_metadata(parsed.metadata, "metadata")
    check_metadata(parsed.spec.template.metadata, "spec.template.metadata")
    _check_template(parsed.spec.template, key.name)
    return parsed


def _check_service_name(name: str) -> None:
    if len(name) > 49 or not _LABEL.fullmatch(name):
        raise invalid(
            "must use only lowercase alphanumeric characters and dashes, cannot begin or end with "
            "a dash or begin with a digit, and cannot be longer than 49 characters.",
            "metadata.name",
        )


def _check_template(template: schema.RevisionTemplate, service_name: str) -> None:
    name = template.metadata.name if template.metadata else None
    if name:
        _check_revision_name(name, service_name)
    spec = template.spec
    assert spec is not None
    where = "spec.template.spec"
    if not spec.containers:
        raise invalid("At least one container is required.", f"{where}.containers")
    if len(spec.containers) > 1 and sum(bool(c.ports) for c in spec.containers) != 1:
        raise invalid("Exactly one container must have a port.", f"{where}.containers")
    if spec.timeout_seconds is not None and not 1 <= spec.timeout_seconds <= 3600:
        raise invalid("must be between 1 and 3600.", f"{where}.timeoutSeconds")
    if spec.container_concurrency is not None and not 0 <= spec.container_concurrency <= 1000:
        raise invalid("must be between 1 and 1000.", f"{where}.containerConcurrency")
    for index, container in enumerate(spec.containers):
        _check_container(container, f"{where}.containers[{index}]")


def _check_revision_name(name: str, service_name: str) -> None:
    field = "spec.template.metadata.name"
    if not name.startswith(f"{service_name}-"):
        raise invalid(f"must be prefixed by the service's name and a dash: {service_name}-.", field)
    if len(name) > 63 or not _LABEL.fullmatch(name):
        raise invalid(
            "must use only lowercase alphanumeric characters and dashes, cannot begin or end with "
            "a dash, and cannot be longer than 63 characters.",
            field,
        )


def _check_container(container: schema.Container, where: str) -> None:
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
            scale.amount((limits or {}).get(name, "1"))
        except ValueError:
            raise invalid("is no quantity.", f"{where}.resources.limits.{name}") from None
    if container.startup_probe:
        _check_probe(container.startup_probe, f"{where}.startupProbe", longest=240)
    if container.liveness_probe:
        _check_probe(container.liveness_probe, f"{where}.livenessProbe", longest=3600)


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


def _check_probe(probe: schema.Probe, where: str, *, longest: int) -> None:
    actions = [probe.http_get, probe.tcp_socket, probe.grpc]
    if sum(action is not None for action in actions) > 1 or probe.exec is not None:
        raise invalid("Exactly one of httpGet, tcpSocket and grpc is supported.", where)
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


def traffic(
    targets: list[schema.TrafficTarget] | None, revisions: Collection[str], service_name: str
) -> list[dict[str, Any]]:
    """The traffic plan as it is kept: defaults in, and entries that mean nothing left out.

    `revisions` are the names of the service's revisions, the one being made included.
    Raises a 400 ApiError for a plan that cannot be.
    """
    if not targets:
        return [{"latestRevision": True, "percent": 100}]
    tags: set[str] = set()
    plan = []
    for index, target in enumerate(targets):
        where = f"spec.traffic[{index}]"
        _check_target(target, where, revisions, service_name)
        if target.tag:
            _check_tag(target.tag, tags, f"{where}.tag", service_name)
        kept = schema.plain(target)
        kept.pop("url", None)
        kept.pop("configurationName", None)
        if not kept.get("latestRevision"):
            kept.pop("latestRevision", None)
        if not kept.get("percent"):
            kept.pop("percent", None)
        if not kept.get("tag"):
            kept.pop("tag", None)
        if "percent" in kept or "tag" in kept:
            plan.append(kept)
    total = sum(target.get("percent", 0) for target in plan)
    if total != 100:
        raise invalid(f"Traffic percentages must sum to 100, got {total}.", "spec.traffic")
    return plan


def _check_target(
    target: schema.TrafficTarget, where: str, revisions: Collection[str], service_name: str
) -> None:
    if target.percent is not None and not 0 <= target.percent <= 100:
        raise invalid("must be between 0 and 100.", f"{where}.percent")
    if bool(target.revision_name) == bool(target.latest_revision):
        raise invalid("Exactly one of revisionName and latestRevision is required.", where)
    if target.revision_name and target.revision_name not in revisions:
        raise ApiError(
            "NOT_FOUND",
            f"{where}.revisionName: Revision '{target.revision_name}' of service "
            f"'{service_name}' does not exist.",
        )


def _check_tag(tag: str, seen: set[str], field: str, service_name: str) -> None:
    if len(tag) > 46 or not _LABEL.fullmatch(tag):
        raise invalid(
            "must use only lowercase alphanumeric characters and dashes, begin with a letter, not "
            "end with a dash, and be no longer than 46 characters.",
            field,
        )
    # A tag and its service's name are one DNS label, TAG---SERVICE, of at most 63 characters.
    if len(tag) + len("---") + len(service_name) > 63:
        raise invalid("The tag and the service's name are too long together.", field)
    if tag in seen:
        raise invalid(f"The tag '{tag}' is given twice.", field)
    seen.add(tag)
