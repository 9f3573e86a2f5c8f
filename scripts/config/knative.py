"""The Cloud Run manifest as types: the part of Knative's Service that Cloud Run documents.

They check files only. Answers of the API stay untyped, so that no field is lost. Every key is
optional, because the same types check whole manifests and overlays.

Source: https://cloud.google.com/run/docs/reference/yaml/v1 and the discovery document `run.v1`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Numeric = int | str


class _Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A mapping in which an unknown key is an error; null in an overlay removes a key."""


class KeyRef(_Part):
    key: str | None = None
    name: str | None = None


class EnvSource(_Part):
    secret_key_ref: KeyRef | None = None


class EnvVar(_Part):
    name: str
    value: str | None = None
    value_from: EnvSource | None = None


class Port(_Part):
    name: Literal["http1", "h2c"] | None = None
    container_port: int | None = None
    protocol: Literal["TCP"] | None = None


class Resources(_Part):
    limits: dict[str, Numeric | None] | None = None
    requests: dict[str, Numeric | None] | None = None


class HttpHeader(_Part):
    name: str
    value: str | None = None


class HttpGet(_Part):
    path: str | None = None
    port: int | None = None
    http_headers: list[HttpHeader] | None = None


class TcpSocket(_Part):
    port: int | None = None


class Grpc(_Part):
    port: int | None = None
    service: str | None = None


class Probe(_Part):
    initial_delay_seconds: int | None = None
    timeout_seconds: int | None = None
    period_seconds: int | None = None
    failure_threshold: int | None = None
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: Grpc | None = None


class VolumeMount(_Part):
    name: str
    mount_path: str | None = None
    sub_path: str | None = None
    read_only: bool | None = None


class Container(_Part):
    name: str | None = None
    image: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str | None = None
    ports: list[Port] | None = None
    env: list[EnvVar] | None = None
    resources: Resources | None = None
    startup_probe: Probe | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    volume_mounts: list[VolumeMount] | None = None


class KeyToPath(_Part):
    key: str
    path: str | None = None
    mode: int | None = None


class SecretVolume(_Part):
    secret_name: str | None = None
    default_mode: int | None = None
    items: list[KeyToPath] | None = None


class EmptyDir(_Part):
    medium: str | None = None
    size_limit: str | None = None


class Csi(_Part):
    driver: str | None = None
    read_only: bool | None = None
    volume_attributes: dict[str, str | None] | None = None


class Nfs(_Part):
    server: str | None = None
    path: str | None = None
    read_only: bool | None = None


class Volume(_Part):
    name: str
    secret: SecretVolume | None = None
    empty_dir: EmptyDir | None = None
    csi: Csi | None = None
    nfs: Nfs | None = None


class RevisionSpec(_Part):
    containers: list[Container] | None = None
    container_concurrency: int | None = None
    timeout_seconds: int | None = None
    service_account_name: str | None = None
    volumes: list[Volume] | None = None
    node_selector: dict[str, str | None] | None = None


class TemplateMetadata(_Part):
    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None


class Template(_Part):
    metadata: TemplateMetadata | None = None
    spec: RevisionSpec | None = None


class ServiceSpec(_Part):
    template: Template | None = None


class ServiceMetadata(_Part):
    name: str | None = None
    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None


class Service(_Part):
    """A Cloud Run service as its manifest declares it.

    Traffic and the revision's name are missing on purpose: releases decide them, not files.
    """

    api_version: Literal["serving.knative.dev/v1"] | None = None
    kind: Literal["Service"] | None = None
    metadata: ServiceMetadata | None = None
    spec: ServiceSpec | None = None
