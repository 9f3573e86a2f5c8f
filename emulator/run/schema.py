"""The shape of a Service that a client may send: the names and types of its fields.

Source: the discovery document run.v1, schemas Service, RevisionTemplate, RevisionSpec, Container
and the schemas that they refer to.
"""

from __future__ import annotations

from typing import Any

import msgspec

from emulator.fields import convert, without_null

Text = dict[str, str]
Anything = dict[str, Any]


class _Shape(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """An object in which an undeclared field is an error."""


class ObjectMeta(_Shape):
    annotations: Text | None = None
    labels: Text | None = None
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    cluster_name: str | None = None
    creation_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    deletion_timestamp: str | None = None
    finalizers: list[str] | None = None
    generate_name: str | None = None
    owner_references: list[Anything] | None = None
    self_link: str | None = None
    uid: str | None = None


class TrafficTarget(_Shape):
    configuration_name: str | None = None
    latest_revision: bool | None = None
    percent: int | None = None
    revision_name: str | None = None
    tag: str | None = None
    url: str | None = None


class KeySelector(_Shape):
    key: str | None = None
    name: str | None = None
    optional: bool | None = None
    local_object_reference: Anything | None = None


class EnvVarSource(_Shape):
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(_Shape):
    name: str = ""
    value: str | None = None
    value_from: EnvVarSource | None = None


class ContainerPort(_Shape):
    container_port: int | None = None
    name: str | None = None
    protocol: str | None = None


class HTTPHeader(_Shape):
    name: str = ""
    value: str | None = None


class HTTPGetAction(_Shape):
    host: str | None = None
    http_headers: list[HTTPHeader] | None = None
    path: str | None = None
    port: int | None = None
    scheme: str | None = None


class TCPSocketAction(_Shape):
    host: str | None = None
    port: int | None = None


class GRPCAction(_Shape):
    port: int | None = None
    service: str | None = None


class Probe(_Shape):
    failure_threshold: int | None = None
    grpc: GRPCAction | None = None
    http_get: HTTPGetAction | None = None
    initial_delay_seconds: int | None = None
    period_seconds: int | None = None
    success_threshold: int | None = None
    tcp_socket: TCPSocketAction | None = None
    timeout_seconds: int | None = None
    exec: Anything | None = None


class ResourceRequirements(_Shape):
    limits: Text | None = None
    requests: Text | None = None


class SecurityContext(_Shape):
    run_as_user: int | None = None


class VolumeMount(_Shape):
    mount_path: str | None = None
    name: str | None = None
    read_only: bool | None = None
    sub_path: str | None = None


class Volume(_Shape):
    name: str | None = None
    config_map: Anything | None = None
    csi: Anything | None = None
    empty_dir: Anything | None = None
    nfs: Anything | None = None
    secret: Anything | None = None


class Container(_Shape):
    image: str = ""
    name: str | None = None
    args: list[str] | None = None
    command: list[str] | None = None
    env: list[EnvVar] | None = None
    env_from: list[Anything] | None = None
    image_pull_policy: str | None = None
    liveness_probe: Probe | None = None
    ports: list[ContainerPort] | None = None
    readiness_probe: Probe | None = None
    resources: ResourceRequirements | None = None
    security_context: SecurityContext | None = None
    startup_probe: Probe | None = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None
    volume_mounts: list[VolumeMount] | None = None
    working_dir: str | None = None


class RevisionSpec(_Shape):
    containers: list[Container] = []
    container_concurrency: int | None = None
    enable_service_links: bool | None = None
    image_pull_secrets: list[Anything] | None = None
    node_selector: Text | None = None
    runtime_class_name: str | None = None
    service_account_name: str | None = None
    timeout_seconds: int | None = None
    volumes: list[Volume] | None = None


class RevisionTemplate(_Shape):
    metadata: ObjectMeta | None = None
    spec: RevisionSpec | None = None


class ServiceSpec(_Shape):
    template: RevisionTemplate | None = None
    traffic: list[TrafficTarget] | None = None


class Service(_Shape):
    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta | None = None
    spec: ServiceSpec | None = None
    status: Anything | None = None


def service(document: Any) -> Service:
    """Return parsed JSON as a Service; raise a 400 ApiError that names the field.

    Numbers may be written as text, as in Google's other JSON APIs. null counts as absent.
    """
    return convert(without_null(document), Service, "service")


def plain(shape: _Shape) -> dict[str, Any]:
    """Return a shape as JSON-ready data, without the absent fields."""
    data: dict[str, Any] = msgspec.to_builtins(shape)
    return data
