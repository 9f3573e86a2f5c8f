"""The formats of pipelines/, as types: environments, smoke checks, and what services share.

Files are checked against them, errors quote their descriptions, and `nox -s schema` generates
the schemas in pipelines/ from them.
"""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from scripts.config import knative, secret_name

Percent = Annotated[int, Meta(ge=1, le=100)]
Duration = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]+(\.[0-9]+)?(s|m|h)$",
        description="a duration, such as 90s, 5m or 1h",
    ),
]
# Source: https://cloud.google.com/run/docs/reference/rest/v1/namespaces.services (metadata.name)
ServiceName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z]([a-z0-9-]{0,47}[a-z0-9])?$",
        description="at most 49 lower-case letters, digits and hyphens, starting with a letter and"
        " not ending with a hyphen",
    ),
]
Project = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$",
        description="the ID of a Google Cloud project, such as my-project",
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
        description="the platform that images are for: linux/amd64, or host for this machine's",
    ),
]
Endpoint = Annotated[
    str,
    Meta(
        pattern=r"^(up|https?://[^/\s]+)$",
        description="what to use instead of Google: up, the local Cloud Run that ./ship up starts"
        " for this checkout, or an address, such as http://127.0.0.1:8787",
    ),
]
Credentials = Annotated[
    str,
    Meta(
        pattern=r"^(google|none|(user|serviceAccount):[^@\s:/]+@[^@\s:/]+)$",
        description="google; none; or with endpoint: up whom requests are from, such as"
        " user:me@example.com (none there: its owner)",
    ),
]

TrustFile = Annotated[
    str,
    Meta(
        pattern=r"^(?!/)(?!(.*/)?\.\.(/|$)).+$",
        description="a file in this repository: the trusted root (JSON) of the Sigstore instance"
        " that signs provenance, if that is not the public one",
    ),
]


Variable = Annotated[
    str,
    Meta(
        description="an environment variable's name: letters, digits and underscores",
        extra_json_schema={"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    ),
]


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A mapping in which an unknown key is an error."""


Points = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,2}(\.[0-9]+)?%$",
        description="percentage points below 100, such as 0.5%",
    ),
]
WorseBy = Annotated[
    Points,
    Meta(extra_json_schema={"title": "how far the share may be above stable's, in points"}),
]
Latency = Annotated[
    str,
    Meta(pattern=r"^[0-9]+(\.[0-9]+)?(ms|s)$", description="a time, such as 500ms or 2s"),
]


class WatchErrors(_Strict, frozen=True, rename="kebab"):
    """What is watched of the answers that are 5xx."""

    worse_by: WorseBy = "0.5%"


class WatchLatency(_Strict, frozen=True, rename="kebab"):
    """What is watched of the answers that are slow."""

    over: Annotated[
        Latency, Meta(extra_json_schema={"title": "an answer that takes longer is slow"})
    ] = "500ms"
    worse_by: WorseBy = "2%"


class Watch(_Strict, frozen=True, rename="kebab"):
    """How a rollout decides by what users are answered, besides the smoke checks."""

    errors: Annotated[
        WatchErrors | None, Meta(description="answers that are 5xx; null: not watched")
    ] = msgspec.field(default_factory=WatchErrors)
    latency: Annotated[WatchLatency | None, Meta(description="slow answers; null: not watched")] = (
        msgspec.field(default_factory=WatchLatency)
    )
    false_alarms: Annotated[
        Points,
        Meta(
            extra_json_schema={
                "title": "of releases no worse than stable, at most so many are rolled back"
            }
        ),
    ] = "1%"
    at_least: Annotated[
        int,
        Meta(ge=1, description="answers of the candidate before a step may count as healthy"),
    ] = 200
    unclear: Annotated[
        Literal["wait", "go-on", "stop"],
        Meta(
            description="at the end of a bake with too few answers: wait, up to `patience`, and"
            " then stop; go on; or stop"
        ),
    ] = "wait"
    patience: Annotated[
        Duration, Meta(extra_json_schema={"title": "how long a step waits for more answers"})
    ] = "30m"
    warm_up: Annotated[
        Duration,
        Meta(extra_json_schema={"title": "a new revision's first answers, which do not count"}),
    ] = "60s"
    after: Annotated[
        Duration,
        Meta(extra_json_schema={"title": "how long the watch goes on after the last step"}),
    ] = "30m"
    source: Annotated[
        Literal["metrics", "logs"],
        Meta(
            description="where answers are counted. metrics: Cloud Monitoring, minutes late."
            " logs: Cloud Logging's request log, seconds late, for up to 15,000 answers a minute"
            " in all regions"
        ),
    ] = "metrics"
    own_delay: (
        Annotated[
            Duration,
            Meta(
                extra_json_schema={
                    "title": "how late numbers arrive at most; default: 4m, or 30s with logs"
                }
            ),
        ]
        | None
    ) = msgspec.field(default=None, name="delay")

    @property
    def delay(self) -> str:
        """How late numbers arrive at most."""
        return self.own_delay or _DELAYS[self.source]


_DELAYS = {"metrics": "4m", "logs": "30s"}


class Rollout(_Strict, frozen=True):
    """How traffic moves to a release."""

    steps: Annotated[
        list[Percent], Meta(min_length=1, description="the percentage of each step, rising")
    ] = msgspec.field(default_factory=lambda: [100])
    bake: Annotated[Duration, Meta(extra_json_schema={"title": "how long each step bakes"})] = "0s"
    watch: (
        Annotated[
            Watch,
            Meta(
                description="decide by what users are answered; without it, by smoke checks alone"
            ),
        ]
        | None
    ) = None


_REFERENCE = rf"\$[A-Z_][A-Z0-9_]*|{secret_name.PATTERN}"


class Receiver(_Strict, frozen=True):
    """Who hears of each change of a release."""

    to: Annotated[
        Literal["slack", "google-chat", "cloud-event"],
        Meta(description="the form of the message; slack: any webhook that takes Slack's"),
    ]
    url: Annotated[
        str,
        Meta(
            pattern=rf"^({_REFERENCE}|https://[^\s]+)$",
            description="where it goes: $VARIABLE, projects/PROJECT/secrets/NAME, or, for a"
            " cloud-event, an https:// address",
        ),
    ]
    key: (
        Annotated[
            str,
            Meta(
                pattern=rf"^({_REFERENCE})$",
                description="what signs a cloud-event: $VARIABLE or projects/PROJECT/secrets/NAME",
            ),
        ]
        | None
    ) = None


AT_ONCE = Rollout()
"""The rollout of a new environment's file, unless a commit serves elsewhere first."""
GRADUAL = Rollout(steps=[10, 50, 100], bake="5m")
"""The rollout of a new environment's file after another environment, or with users already."""


_NOT_CHOSEN = "not-chosen-"


def not_chosen(env: str) -> str:
    """Return what stands for an environment's project until it is chosen; differs for each one."""
    return f"{_NOT_CHOSEN}{env}"[:30].rstrip("-")


def is_chosen(project: str) -> bool:
    """Return whether a project is one; if not, nothing is sent to Google for it."""
    return not project.startswith(_NOT_CHOSEN)


class Environment(_Strict, frozen=True):
    """One environment of a service: where it runs, where its images are, how traffic moves."""

    project: Project
    regions: Annotated[
        list[Region], Meta(min_length=1, description="in the order in which they get a release")
    ]
    registry: Registry
    after: (
        Annotated[
            str,
            Meta(
                description="the environment that a commit must serve in first:"
                " the same image is released here, never rebuilt"
            ),
        ]
        | None
    ) = None
    access: Annotated[
        Literal["public", "private"],
        Meta(description="who may invoke the service: everyone, or principals with run.invoker"),
    ] = "private"
    confirm: Annotated[
        bool, Meta(description="whether a change from a terminal asks for confirmation")
    ] = False
    platform: Platform = "linux/amd64"
    builder: Annotated[
        Literal["docker", "cloud-build"],
        Meta(description="docker: buildx, on this machine or runner; cloud-build: Cloud Build"),
    ] = "docker"
    builds_as: (
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9-]+@[a-z0-9-]+\.iam\.gserviceaccount\.com$",
                description="the service account that Cloud Build builds as, for builder:"
                " cloud-build (default: the project's own)",
            ),
        ]
        | None
    ) = None
    credentials: Credentials = "google"
    endpoint: Endpoint | None = None
    verify: (
        Annotated[
            Literal["provenance", "none"],
            Meta(
                description="provenance: deploy only images that this repository's build.yml signed"
                " (default for production at Google); none: deploy any image of the commit"
            ),
        ]
        | None
    ) = None
    trust: TrustFile | None = None
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    notify: Annotated[
        list[Receiver], Meta(description="who hears of each change of a release")
    ] = []
    overlay: (
        Annotated[
            knative.Service,
            Meta(
                description="merged over service.yaml: lists of named items merge by name,"
                " null removes a key"
            ),
        ]
        | None
    ) = None


class Expect(_Strict, frozen=True):
    """The expected response; all conditions must hold."""

    status: Annotated[
        Annotated[int, Meta(ge=100, le=599)] | Literal["any"],
        Meta(description="the status; any: the service answers, and not with 404, 429 or 5xx"),
    ] = 200
    headers: Annotated[dict[str, str], Meta(description="header: its exact value")] = {}
    json: Annotated[dict[str, Any], Meta(description="dotted.path in the JSON body: value")] = {}
    text: Annotated[str, Meta(description="text that the body contains")] | None = None
    commit: (
        Annotated[
            str, Meta(description="dotted.path in the JSON body that holds the commit's full SHA")
        ]
        | None
    ) = None
    within: Annotated[
        Duration, Meta(extra_json_schema={"title": "how long the whole answer may take"})
    ] = "10s"


class Check(_Strict, frozen=True):
    """One smoke check: a request, and the expected response."""

    path: Annotated[str, Meta(pattern=r"^/", description="a path from the root, such as /health")]
    name: (
        Annotated[str, Meta(description="what reports call the check; default: METHOD PATH")] | None
    ) = None
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] = "GET"
    headers: Annotated[dict[str, str], Meta(description="header of the request: its value")] = {}
    body: Annotated[str, Meta(description="the request's body")] | None = None
    expect: Expect = msgspec.field(default_factory=Expect)

    @property
    def title(self) -> str:
        """The name that reports use."""
        return self.name or f"{self.method} {self.path}"


class Services(_Strict, frozen=True):
    """pipelines/services.yaml: how the services of this repository relate to each other."""

    calls: Annotated[
        dict[str, list[str] | dict[str, Variable]],
        Meta(
            description="service: the services that it calls. It gets the URL of each in a"
            " variable, NAME_URL unless a name is given, and may invoke it"
        ),
    ] = {}
    shared: Annotated[
        dict[str, list[str]],
        Meta(description="folder of this repository: the services that a change in it delivers"),
    ] = {}


BUILT_IN = Check(path="/", name="answers", expect=Expect(status="any"))
"""The check of a service that declares none: its URL answers at all."""


def matches(text: str, type_: Any) -> bool:
    """Return whether a text has the form of one of the types above."""
    return re.search(get_args(type_)[1].pattern, text) is not None


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas for editors: file in pipelines/ -> schema."""
    types = {
        "schema.json": Environment,
        "smoke.schema.json": list[Check] | None,
        "services.schema.json": Services | None,
    }
    return {
        file: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **_clean(msgspec.json.schema(type_)),
        }
        for file, type_ in types.items()
    }


def _clean(value: Any) -> Any:
    """Remove the indentation that some Python versions leave in docstrings."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return inspect.cleandoc(value) if isinstance(value, str) else value
