"""The shapes of what is read from Google and registries, each checked once, as it arrives.

A field that is not here is not read, and stays in the document: what is written back must be
complete (I8).
"""

from __future__ import annotations

import threading
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests

from scripts.errors import Failed

T = TypeVar("T")

_SHOWN_BYTES = 200
# msgspec builds its table of a type on first use, and crashes if two threads do so at once.
_converting = threading.Lock()
HIDDEN = "(the answer is not shown: it may hold a token)"
_SERVICES = {
    "run": "Cloud Run",
    "logging": "Cloud Logging",
    "monitoring": "Cloud Monitoring",
    "iam": "IAM",
    "iamcredentials": "IAM Credentials",
    "secretmanager": "Secret Manager",
    "artifactregistry": "Artifact Registry",
    "serviceusage": "Service Usage",
    "cloudresourcemanager": "Resource Manager",
    "cloudbuild": "Cloud Build",
    "storage": "Cloud Storage",
}


class BadAnswer(Failed):
    """An answer that is not the JSON that was asked for: a proxy's page, a part, another kind."""


class _Answer(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A part of an answer. Google leaves out what is empty."""


class Refusal(_Answer, frozen=True, kw_only=True):
    """An error. Source: https://cloud.google.com/apis/design/errors#http_mapping."""

    class Error(_Answer, frozen=True, kw_only=True):
        message: str = ""
        status: str = ""

    error: Error


class ListMeta(_Answer, frozen=True, kw_only=True):
    """What a list says of itself: the token of its next page."""

    continue_: str | None = msgspec.field(name="continue", default=None)


class Meta(_Answer, frozen=True, kw_only=True):
    """The metadata of a Knative object."""

    name: str
    generation: int = 0
    resource_version: str = ""
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class RevisionMeta(Meta, frozen=True, kw_only=True):
    """A revision's metadata; revisions are sorted by their age."""

    creation_timestamp: str


class Target(_Answer, frozen=True, kw_only=True):
    """One target of traffic."""

    revision_name: str | None = None
    percent: int | None = None
    tag: str | None = None
    url: str | None = None
    latest_revision: bool | None = None


class Condition(_Answer, frozen=True, kw_only=True):
    """One condition."""

    type: str
    status: str = "Unknown"
    reason: str | None = None
    message: str | None = None


class Container(_Answer, frozen=True, kw_only=True):
    """A container, as far as it is read."""

    image: str = ""
    ports: list[dict[str, Any]] | None = None


class RevisionSpec(_Answer, frozen=True, kw_only=True):
    """What a revision runs."""

    containers: list[Container] | None = None


class Template(_Answer, frozen=True, kw_only=True):
    """The template of the next revision."""

    metadata: dict[str, Any] | None = None
    spec: RevisionSpec


class ServiceSpec(_Answer, frozen=True, kw_only=True):
    """What is wanted of a service."""

    template: Template
    traffic: list[Target] | None = None


class RevisionStatus(_Answer, frozen=True, kw_only=True):
    """How a revision is."""

    conditions: list[Condition] | None = None
    image_digest: str | None = None


class ServiceStatus(_Answer, frozen=True, kw_only=True):
    """How a service is."""

    observed_generation: int = 0
    conditions: list[Condition] | None = None
    traffic: list[Target] | None = None
    url: str | None = None
    latest_ready_revision_name: str | None = None
    latest_created_revision_name: str | None = None


class Service(_Answer, frozen=True, kw_only=True):
    """A Knative Service. Source: https://cloud.google.com/run/docs/reference/rest/v1/namespaces.services."""

    kind: Literal["Service"]
    metadata: Meta
    spec: ServiceSpec
    status: ServiceStatus | None = None


class Revision(_Answer, frozen=True, kw_only=True):
    """A Knative Revision. Source: https://cloud.google.com/run/docs/reference/rest/v1/namespaces.revisions."""

    metadata: RevisionMeta
    spec: RevisionSpec
    status: RevisionStatus | None = None


class OneRevision(Revision, frozen=True, kw_only=True):
    """A revision that was asked for by name. In a list, the kind is the list's."""

    kind: Literal["Revision"]


class RevisionList(_Answer, frozen=True, kw_only=True):
    """A page of revisions. It must say that it is one: an empty answer is not an empty list."""

    kind: Literal["RevisionList"]
    metadata: ListMeta | None = None
    items: list[Revision] | None = None


class Resource(_Answer, frozen=True, kw_only=True):
    """The fields of a log's resource."""

    labels: dict[str, str] | None = None


class HttpRequest(_Answer, frozen=True, kw_only=True):
    """A request in a log."""

    latency: Annotated[str, msgspec.Meta(pattern=r"^(\d+(\.\d+)?s?)?$")] = ""


_Moment = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]


class Entry(_Answer, frozen=True, kw_only=True):
    """A log entry. Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry."""

    insert_id: str
    timestamp: _Moment
    severity: str = ""
    resource: Resource | None = None
    text_payload: str | None = None
    json_payload: dict[str, Any] | None = None
    proto_payload: dict[str, Any] | None = None
    http_request: HttpRequest | None = None


class Entries(_Answer, frozen=True, kw_only=True):
    """A page of log entries."""

    entries: list[Entry] | None = None
    next_page_token: str = ""


class RequestEntry(_Answer, frozen=True, kw_only=True):
    """An entry of Cloud Run's request log."""

    class OfRevision(_Answer, frozen=True, kw_only=True):
        labels: dict[str, str]

    class Answered(_Answer, frozen=True, kw_only=True):
        status: Annotated[int, msgspec.Meta(ge=0, le=999)] = 0
        latency: Annotated[str, msgspec.Meta(pattern=r"^\d{1,9}(\.\d+)?s$")] = "0s"

    insert_id: str
    timestamp: _Moment
    receive_timestamp: _Moment
    resource: OfRevision
    http_request: Answered


class RequestEntries(_Answer, frozen=True, kw_only=True):
    """A page of the request log."""

    entries: list[RequestEntry] | None = None
    next_page_token: str = ""


class TimeSeries(_Answer, frozen=True, kw_only=True):
    """A series of numbers. Source: …/monitoring/api/ref_v3/rest/v3/TimeSeries."""

    class Labels(_Answer, frozen=True, kw_only=True):
        labels: dict[str, str] = {}

    class Point(_Answer, frozen=True, kw_only=True):
        class Interval(_Answer, frozen=True, kw_only=True):
            start_time: str
            end_time: str

        class Value(_Answer, frozen=True, kw_only=True):
            class Distribution(_Answer, frozen=True, kw_only=True):
                class Options(_Answer, frozen=True, kw_only=True):
                    class Exponential(_Answer, frozen=True, kw_only=True):
                        num_finite_buckets: int
                        growth_factor: float
                        scale: float

                    class Explicit(_Answer, frozen=True, kw_only=True):
                        bounds: list[float] = []

                    exponential_buckets: Exponential | None = None
                    explicit_buckets: Explicit | None = None

                count: Annotated[str, msgspec.Meta(pattern="^[0-9]+$")] = "0"
                bucket_options: Options | None = None
                bucket_counts: list[Annotated[str, msgspec.Meta(pattern="^[0-9]+$")]] = []

            distribution_value: Distribution

        interval: Interval
        value: Value

    metric: Labels
    resource: Labels
    points: list[Point] = []


class ListedTimeSeries(_Answer, frozen=True, kw_only=True):
    """A page of series."""

    time_series: list[TimeSeries] | None = None
    next_page_token: str = ""


class Binding(_Answer, frozen=True, kw_only=True):
    """Who has a role."""

    role: str
    members: list[str] = []


class Policy(_Answer, frozen=True, kw_only=True):
    """An IAM policy."""

    etag: str = ""
    bindings: list[Binding] | None = None


class Operation(_Answer, frozen=True, kw_only=True):
    """A long-running operation, or a resource that was made at once."""

    class Error(_Answer, frozen=True, kw_only=True):
        message: str = ""

    name: str = ""
    done: bool = False
    error: Error | None = None


class StoredObject(_Answer, frozen=True, kw_only=True):
    """An object of Cloud Storage."""

    generation: str
    md5_hash: str


class BuiltImage(_Answer, frozen=True, kw_only=True):
    """An image that a build pushed."""

    name: str = ""
    digest: str = ""


class BuildResults(_Answer, frozen=True, kw_only=True):
    """What a build made."""

    images: list[BuiltImage] | None = None


class FailureInfo(_Answer, frozen=True, kw_only=True):
    """Why a build failed."""

    detail: str = ""


class Build(_Answer, frozen=True, kw_only=True):
    """A build. Source: https://cloud.google.com/build/docs/api/reference/rest/v1/projects.builds."""

    id: str
    status: str
    status_detail: str = ""
    log_url: str = ""
    failure_info: FailureInfo | None = None
    results: BuildResults | None = None


class StartedBuild(_Answer, frozen=True, kw_only=True):
    """The operation of a build."""

    class Metadata(_Answer, frozen=True, kw_only=True):
        build: Build

    metadata: Metadata


class ListedBuilds(_Answer, frozen=True, kw_only=True):
    """A page of builds."""

    builds: list[Build] | None = None


class Named(_Answer, frozen=True, kw_only=True):
    """A resource of which the name is read."""

    name: str


class Project(_Answer, frozen=True, kw_only=True):
    """A project."""

    project_number: str


class EnabledApis(_Answer, frozen=True, kw_only=True):
    """The state of APIs in a project."""

    class Api(_Answer, frozen=True, kw_only=True):
        config: Named
        state: str = ""

    services: list[Api] | None = None


class Examined(_Answer, frozen=True, kw_only=True):
    """What the local Cloud Run cannot build of a Dockerfile without Docker, and what to know.

    `docker` is whether it builds with Docker instead.
    """

    class Problem(_Answer, frozen=True, kw_only=True):
        line: int
        instruction: str
        reason: str
        instead: str = ""

    class Note(_Answer, frozen=True, kw_only=True):
        line: int
        instruction: str
        text: str
        kind: str = ""

    problems: list[Problem]
    notes: list[Note]
    docker: bool = False


class TokenInfo(_Answer, frozen=True, kw_only=True):
    """What a token says."""

    email: str = ""


class IdToken(_Answer, frozen=True, kw_only=True):
    """An ID token."""

    token: Annotated[str, msgspec.Meta(min_length=1)]


class Descriptor(_Answer, frozen=True, kw_only=True):
    """What names a blob or manifest. Source: OCI image specification v1.1, "Descriptor"."""

    digest: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+:[0-9a-f]+$")]
    media_type: str = ""
    size: int = 0
    platform: dict[str, Any] | None = None
    annotations: dict[str, str] | None = None


class Manifest(_Answer, frozen=True, kw_only=True):
    """A manifest or an index."""

    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None


class ImageConfig(_Answer, frozen=True, kw_only=True):
    """An image's configuration."""

    class Config(_Answer, frozen=True, kw_only=True, rename={"labels": "Labels"}):
        labels: dict[str, str] | None = None

    os: str = ""
    architecture: str = ""
    variant: str = ""
    config: Config | None = None


class RegistryErrors(_Answer, frozen=True, kw_only=True):
    """A registry's refusal. Source: OCI distribution specification v1.1, "Error Codes"."""

    class Error(_Answer, frozen=True, kw_only=True):
        code: str
        message: str | None = None

    errors: list[Error]


def service(api: str) -> str:
    """Return the name of one of Google's APIs for people."""
    return _SERVICES.get(api, f"{api}.googleapis.com")


def document(answer: requests.Response, service: str, shape: Any) -> dict[str, Any]:
    """Return the JSON document of an answer, which has the type `shape`.

    Args:
        answer: the answer.
        service: who answers, in human-readable form.
        shape: one of the types of this file, or a plain dict.

    Raises:
        BadAnswer: it is something else.
    """
    content = answer.content
    try:
        found: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
        with _converting:
            msgspec.convert(found, shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        parts = urlsplit(str(answer.request.url))
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        reason = str(error) if kind.endswith("json") and content else f"it is {kind or 'empty'}"
        start = content[:_SHOWN_BYTES].decode(errors="replace") or "(an empty answer)"
        raise BadAnswer(
            f"{service} ({parts.netloc}) does not answer {answer.request.method} {parts.path} with"
            f" the JSON that was asked for: {reason}",
            "try again; a proxy or a wrong endpoint in the environment's file may be the cause",
            evidence=[HIDDEN if shape is IdToken else start],
        ) from None
    return found
