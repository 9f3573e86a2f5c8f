"""The formats of pipelines/<service>/: environments and smoke checks, as types.

They are what files are checked against, what errors explain themselves with, and what
pipelines/schema.json is generated from (`nox -s schema`): one truth.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from scripts.config import knative

Percent = Annotated[int, Meta(ge=1, le=100)]
Duration = Annotated[
    str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?(s|m|h)$", description="for example 90s, 5m or 1h")
]
Project = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$",
        description="the id of a Google Cloud project, for example my-project",
    ),
]
Region = Annotated[
    str, Meta(pattern=r"^[a-z]+(-[a-z]+)+[0-9]+$", description="a region, such as us-central1")
]
Registry = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9.:-]+/[a-z0-9][a-z0-9.:-]*/[a-z0-9][a-z0-9-]*$",
        description="an Artifact Registry repository: HOST/PROJECT/REPOSITORY",
    ),
]
Platform = Annotated[
    str,
    Meta(
        pattern=r"^(host|[a-z0-9]+/[a-z0-9]+)$",
        description="what images must be for: linux/amd64, or host for this machine's own",
    ),
]
Endpoint = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^/\s]+$",
        description="an address that answers in the place of Google's, such as the local Cloud Run",
    ),
]


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A mapping in which an unknown key is an error."""


class Rollout(_Strict, frozen=True):
    """How a release gets its traffic."""

    steps: Annotated[
        list[Percent], Meta(min_length=1, description="the share of each step, rising")
    ] = msgspec.field(default_factory=lambda: [100])
    bake: Annotated[
        Duration, Meta(extra_json_schema={"title": "how long each step is watched"})
    ] = "0s"


class Environment(_Strict, frozen=True):
    """One environment of a service: where it runs, whose images, how traffic moves."""

    project: Project
    regions: Annotated[
        list[Region], Meta(min_length=1, description="in the order in which they are released")
    ]
    registry: Registry
    after: (
        Annotated[
            str,
            Meta(
                description="the environment that a commit serves in first:"
                " the same digest comes from there, never rebuilt"
            ),
        ]
        | None
    ) = None
    access: Annotated[
        Literal["public", "private"],
        Meta(description="who may invoke the service: everybody, or principals with run.invoker"),
    ] = "private"
    confirm: Annotated[
        bool, Meta(description="whether a change from a terminal asks once before it is made")
    ] = False
    platform: Platform = "linux/amd64"
    builder: Annotated[
        Literal["docker", "pack"],
        Meta(description="docker buildx, or packing without Docker for the local Cloud Run"),
    ] = "docker"
    credentials: Annotated[
        Literal["google", "none"], Meta(description="whether requests carry Google credentials")
    ] = "google"
    endpoint: Endpoint | None = None
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    overlay: (
        Annotated[
            knative.Service,
            Meta(
                description="merged over service.yaml: lists of named things merge by name,"
                " null takes a key away"
            ),
        ]
        | None
    ) = None


class Expect(_Strict, frozen=True):
    """What is expected of an answer; all of it."""

    status: Annotated[int, Meta(ge=100, le=599)] = 200
    headers: Annotated[dict[str, str], Meta(description="header: its exact value")] = {}
    json: Annotated[dict[str, Any], Meta(description="dotted.path in the JSON body: value")] = {}
    text: Annotated[str, Meta(description="text that the body contains")] | None = None
    commit: Annotated[str, Meta(description="JSON field that holds the commit's SHA")] | None = None
    within: Duration = "10s"


class Check(_Strict, frozen=True):
    """One smoke check: a request, and what is expected of its answer."""

    path: Annotated[str, Meta(pattern=r"^/", description="a path from the root, such as /health")]
    name: str | None = None
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] = "GET"
    headers: dict[str, str] = {}
    body: str | None = None
    expect: Expect = msgspec.field(default_factory=Expect)

    @property
    def title(self) -> str:
        """How reports name the check."""
        return self.name or f"{self.method} {self.path}"


COMMIT_CHECK = Check(path="/version", name="commit", expect=Expect(commit="commit"))
"""The check that always runs: the URL answers with the commit that was built."""


def schema() -> dict[str, Any]:
    """JSON Schema of an environment file, for editors."""
    made = _clean(msgspec.json.schema(Environment))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _clean(value: Any) -> Any:
    """Descriptions without the indentation that only some Pythons leave in docstrings."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return inspect.cleandoc(value) if isinstance(value, str) else value
