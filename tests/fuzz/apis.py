"""Requests to the APIs of the local Cloud Run, made from its own tables of routes.

A new route is fuzzed without a change here. The fields of its body and its parameters come from
Google's discovery documents, or from `SEEDS` where those know nothing of it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from hypothesis import strategies as st

from emulator import routes
from emulator.server import Emulator
from tests import discovery
from tests.conftest import ROOT
from tests.emulator.cloud_run_help import service
from tests.emulator.registry_help import CONFIG, INDEX, LAYER, MANIFEST, digest_of
from tests.fuzz.changes import Change, as_json, changed, changes, odd, spoil, spoiled, texts

PROJECT, REGION, SERVICE, SECRET = "acme", "us-central1", "fuzzed", "key"
REPOSITORY, IMAGE = "images", f"{PROJECT}/images/app"
EMAIL = f"runtime@{PROJECT}.iam.gserviceaccount.com"
BLOB = b"a blob"
BLOB_DIGEST = digest_of(BLOB)
ROOMS = [*sorted(path.parent.name for path in (ROOT / "emulator").glob("*/urls.py")), "pages"]


class Route(NamedTuple):
    """A route of an API: its method, the path with {parameters}, and the room of its handler."""

    method: str
    path: str
    room: str


class Request(NamedTuple):
    """A request to the APIs."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes | None


@functools.cache
def every_route() -> list[Route]:
    """Return the routes of a local Cloud Run, of which one is started and stopped."""

    async def read() -> list[Route]:
        emulator = Emulator(Path(folder, "state"), idle=1)
        await emulator.start(0)
        found = [
            Route(one.method, one.resource.canonical, one.handler.__module__.split(".")[1])
            for one in routes.every(emulator.application)
            if one.resource and one.method != "HEAD"  # GET's handler
        ]
        await emulator.close()
        return found

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(read())


def routes_of(room: str) -> list[Route]:
    """Return the routes whose handlers are in a room of the emulator."""
    return [route for route in every_route() if route.room == room]


# Values that exist, or are of the right form, by the name of the parameter.
KNOWN: dict[str, list[str]] = {
    "project": [PROJECT, "-", "1", "acme-two"],
    "region": [REGION, "-", "europe-west1"],
    "location": [REGION, "-", "us", "global"],
    "name": [
        SERVICE, f"{SERVICE}-1", SECRET, IMAGE, "run.googleapis.com", "clock-skew", "app",
    ],
    "repository": [REPOSITORY],
    "email": [EMAIL, "x@acme.iam.gserviceaccount.com"],
    "digest": [BLOB_DIGEST, "sha256:" + "0" * 64],
    "reference": ["latest", BLOB_DIGEST],
    "package": ["app"],
    "image": [f"app@{BLOB_DIGEST}"],
    "version": ["1", "latest", BLOB_DIGEST],
    "tag": ["latest"],
    "pool": ["pool"],
    "provider": ["provider"],
    "trigger": ["trigger", "0-0-0"],
    "publisher": ["google"],
    "model": ["gemini-2.5-flash"],
}  # fmt: skip
PARAMETERS: dict[str, list[str]] = {
    "labelSelector": ["a=b", "a in (b)", "!a"],
    "limit": ["1"], "pageSize": ["1"], "dryRun": ["all"], "updateMask": ["oidc", "*", "name"],
    "filter": ['metric.type="run.googleapis.com/request_count"', "x>1"],
    "interval.startTime": ["2020-01-01T00:00:00Z"], "interval.endTime": ["2030-01-01T00:00:00Z"],
    "aggregation.alignmentPeriod": ["60s"], "aggregation.perSeriesAligner": ["ALIGN_RATE"],
    "secretId": ["key-two"], "repositoryId": ["images-two"], "mount": [BLOB_DIGEST],
    "from": [IMAGE], "digest": [BLOB_DIGEST], "n": ["1"], "last": ["a"], "artifactType": ["a/b"],
    "service": ["x"], "scope": ["repository:x:pull"], "audience": ["x"], "names": ["a/b"],
    "alt": ["sse"],
    "workloadIdentityPoolId": ["pool"], "workloadIdentityPoolProviderId": ["provider"],
}  # fmt: skip
DESCRIPTOR = {"mediaType": LAYER, "digest": BLOB_DIGEST, "size": len(BLOB)}
SEEDS: dict[str, list[Any]] = {
    "run": [
        service(SERVICE, f"us-central1-docker.pkg.dev/{IMAGE}@{BLOB_DIGEST}", f"{SERVICE}-2"),
        {
            **service(SERVICE, f"us-central1-docker.pkg.dev/{IMAGE}:latest", A="b"),
            "spec": {
                "template": {
                    "metadata": {
                        "name": f"{SERVICE}-3",
                        "annotations": {
                            "autoscaling.knative.dev/maxScale": "2",
                            "run.googleapis.com/startup-cpu-boost": "true",
                        },
                    },
                    "spec": {
                        "containerConcurrency": 80,
                        "timeoutSeconds": 60,
                        "serviceAccountName": EMAIL,
                        "containers": [
                            {
                                "image": f"us-central1-docker.pkg.dev/{IMAGE}:latest",
                                "name": "app",
                                "ports": [{"containerPort": 8080}],
                                "env": [
                                    {"name": "A", "value": "b"},
                                    {
                                        "name": "S",
                                        "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "1"}},
                                    },
                                ],
                                "resources": {"limits": {"cpu": "1", "memory": "512Mi"}},
                                "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                                "livenessProbe": {"httpGet": {"path": "/a"}, "periodSeconds": 1},
                                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                            }
                        ],
                        "volumes": [{"name": "v", "emptyDir": {}}],
                    },
                },
                "traffic": [
                    {"revisionName": f"{SERVICE}-1", "percent": 60, "tag": "a"},
                    {"latestRevision": True, "percent": 40},
                ],
            },
        },
        {"policy": {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]}},
        {"permissions": ["run.services.get"]},
        {"timeout": "1s"},
    ],
    "registry": [
        {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "subject": {**DESCRIPTOR, "mediaType": INDEX},
            "config": {**DESCRIPTOR, "mediaType": CONFIG}, "layers": [DESCRIPTOR],
            "annotations": {"a": "b"}, "artifactType": "a/b",
        },
        {
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [{**DESCRIPTOR, "platform": {"os": "linux", "architecture": "amd64"}}],
        },
    ],
    "faults": [{"name": "clock-skew", "seconds": 1}, {"name": "quota-exceeded", "service": "x"}],
    "projects": [
        {"projectId": "acme-two", "enabled": ["run.googleapis.com"], "owner": "user:a@b.c"},
        {"serviceIds": ["run.googleapis.com"]},
    ],
    "logging": [
        {
            "resourceNames": [f"projects/{PROJECT}"], "filter": 'a.b="c" AND timestamp>"2020"',
            "orderBy": "timestamp desc", "pageSize": 1, "pageToken": "",
        }
    ],
    "identity": [
        {"member": "user:a@b.c"},
        {"repository": "acme/app", "repository_id": "1", "ref": "refs/heads/main"},
        {"accountId": "runtime", "serviceAccount": {"displayName": "x"}},
        {
            "attributeMapping": {"google.subject": "assertion.sub", "attribute.a": "assertion.a"},
            "attributeCondition": "assertion.a == '1' && assertion.b in ['c']",
            "oidc": {"issuerUri": "http://127.0.0.1:1/_github", "allowedAudiences": ["x"]},
        },
        {
            "policy": {
                "version": 3, "etag": "ACAB",
                "bindings": [{"role": "roles/run.admin", "members": ["user:a@b.c", "allUsers"]}],
            }
        },
        {"permissions": ["run.services.get"]},
        {
            "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
            "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt", "scope": "x",
            "audience": f"//iam.googleapis.com/projects/{PROJECT}/locations/global/"
            "workloadIdentityPools/pool/providers/provider", "subjectToken": "e30.e30.e30",
        },
        {"scope": ["x"], "lifetime": "60s"},
        {"audience": "x", "includeEmail": True},
    ],
    "secrets": [
        {"replication": {"automatic": {}}, "labels": {"a": "b"}},
        {"payload": {"data": "eA==", "dataCrc32c": "1"}},
    ],
    "artifacts": [
        {
            "format": "DOCKER", "dockerConfig": {"immutableTags": True},
            "cleanupPolicies": {
                "a": {"id": "a", "action": "DELETE", "condition": {"olderThan": "86400s"}}
            },
        }
    ],
    "gemini": [
        {
            "contents": [{"role": "user", "parts": [{"text": "x"}]}],
            "generationConfig": {"maxOutputTokens": 1},
        }
    ],
    "builds": [
        {
            "name": "trigger", "filename": "f", "serviceAccount": "a",
            "github": {"owner": "a", "name": "b", "push": {"branch": "^main$"}},
        }
    ],
}  # fmt: skip
_TYPES = ["application/json", "application/x-www-form-urlencoded", "text/plain", MANIFEST, INDEX]
_HEADERS = [
    ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate"), ("Content-Encoding", "br"),
    ("Content-Range", "0-5"), ("Content-Range", f"0-{'9' * 5000}"),
    ("Content-Range", "bytes 5-1/x"), ("Range", "bytes=0-"),
    ("Range", "bytes=9999999999999999999999-1"), ("Accept", INDEX), ("Accept", "*/*;q=x"),
    ("Authorization", "Bearer x"), ("Authorization", "Basic b2F1dGgyYWNjZXNzdG9rZW46eA=="),
    ("Authorization", "Basic ="), ("X-Goog-User-Project", "../x"), ("X-Goog-User-Project", "acme"),
    ("Expect", "100-continue"), ("If-None-Match", "x"), ("Cookie", "a=" * 999),
    ("Content-Type", ""),
    ("Content-Type", "application/json; charset=nonsense"), ("Date", "soon"),
    ("Content-Type", "multipart/form-data; boundary=x"), ("Content-Type", "multipart/form-data"),
    ("Content-Type", "application/x-www-form-urlencoded; charset=utf-7"),
]  # fmt: skip


def requests_of(room: str, secret: str) -> st.SearchStrategy[Request]:
    """Return requests to the routes of a room, with the secret of this start where it is needed."""

    @st.composite
    def request(draw: st.DrawFn) -> Request:
        route = draw(st.sampled_from(routes_of(room)))
        method = route.method if route.method != "*" else draw(st.sampled_from(["GET", "POST"]))
        target = draw(_targets(method, route))
        headers = draw(st.lists(st.sampled_from(_HEADERS), max_size=1))
        if not any(name == "Content-Type" for name, _ in headers):
            headers.append(("Content-Type", draw(st.sampled_from([_TYPES[0]] * 9 + _TYPES))))
        if route.path.startswith("/_local/"):
            headers.append(("Shipway-Secret", secret))
        body = None if method in ("GET", "HEAD") else draw(_bodies(room, route))
        return Request(method, target, headers, body)

    return request()


def _targets(method: str, route: Route) -> st.SearchStrategy[str]:
    """Return paths of a route with queries: most parts exist, some are odd."""

    @st.composite
    def target(draw: st.DrawFn) -> str:
        hostile = draw(st.integers(0, 3)) == 0

        def part(found: re.Match[str]) -> str:
            if hostile and draw(st.booleans()):
                text = draw(texts)
            else:
                text = draw(st.sampled_from(KNOWN.get(found[1], ["x"])))
            safe = "/:@" if draw(st.booleans()) else ""
            return quote(text, safe=safe, errors="surrogatepass")

        path = re.sub(r"\{(\w+)\}", part, route.path)
        names = sorted({*_parameters(method, route), *PARAMETERS})
        pairs = []
        # Without all of these there are no time series.
        needed = [name for name in PARAMETERS if "." in name or name == "filter"]
        needed = needed if "timeSeries" in route.path else []
        for name in needed + draw(st.lists(st.sampled_from(names), max_size=3)):
            values = st.sampled_from(PARAMETERS.get(name, ["1"]))
            value = draw(st.one_of(values, values, texts) if needed else st.one_of(values, texts))
            pairs.append(f"{name}={quote(value, errors='surrogatepass')}")
        return path + ("?" + "&".join(pairs) if pairs else "")

    return target()


def _parameters(method: str, route: Route) -> list[str]:
    found = _methods(method, route)
    return [name for one in found for name in one.parameters]


@functools.cache
def _methods(method: str, route: Route) -> tuple[discovery.Method, ...]:
    path = re.sub(r"\{(\w+)\}", lambda found: KNOWN.get(found[1], ["x"])[0], route.path)
    return discovery.methods(method, path)


@functools.cache
def _bodies(room: str, route: Route) -> st.SearchStrategy[bytes | None]:
    """Return bodies: a correct one with changes, one of the right fields, or bytes."""
    documents = [
        st.builds(changed, st.just(seed), st.one_of(st.just(list[Change]()), changes))
        for seed in SEEDS.get(room, [{}])
    ]
    for one in _methods(route.method, route):
        if one.request:
            documents.append(_of_schema(one.api, one.request))
    written = st.one_of(*documents).map(as_json)
    if room == "identity" and route.path in ("/v1/token", "/tokeninfo"):
        written = st.one_of(written, st.dictionaries(texts, texts).map(_form))
    if room == "registry":
        written = st.one_of(written, st.just(BLOB))
    return st.one_of(
        written, written, st.builds(spoil, written, spoiled), st.sampled_from([None, b"", b"\0"])
    )


def _form(fields: dict[str, str]) -> bytes:
    return "&".join(
        f"{quote(k, errors='replace')}={quote(v, errors='replace')}" for k, v in fields.items()
    ).encode()


@functools.cache
def _of_schema(api: str, name: str, levels: int = 3) -> st.SearchStrategy[Any]:
    """Return documents with some of the fields of a schema; a value in ten is of no right type."""

    def value(kind: Any, left: int) -> st.SearchStrategy[Any]:
        right = _of_kind(api, kind, left)
        return st.integers(0, 9).flatmap(lambda dice: odd if dice == 0 else right)

    fields = discovery.document_of(api)["schemas"][name].get("properties", {})
    return st.lists(st.sampled_from(sorted(fields) or ["x"]), max_size=5, unique=True).flatmap(
        lambda names: st.fixed_dictionaries(
            {name: value(fields.get(name, {"type": "any"}), levels) for name in names}
        )
    )


def _of_kind(api: str, kind: Any, levels: int) -> st.SearchStrategy[Any]:
    """Return values of a type in a discovery document."""
    if "$ref" in kind:
        return _of_schema(api, kind["$ref"], levels - 1) if levels else st.just({})
    match kind["type"]:
        case "object":
            inner = kind.get("additionalProperties")
            parts = _of_kind(api, inner, levels) if inner else odd
            return st.dictionaries(texts, parts, max_size=2)
        case "array":
            return st.lists(_of_kind(api, kind["items"], levels), max_size=2)
        case "boolean":
            return st.booleans()
        case "integer":
            return st.one_of(st.integers(0, 100), st.integers())
        case "number":
            return st.floats()
        case _:
            known = [*kind.get("enum", []), *(one for some in KNOWN.values() for one in some)]
            return st.one_of(st.sampled_from(known), texts)


def shown(request: Request) -> str:
    """Return a request as a test's failure shows it."""
    return json.dumps(
        [request.method, request.target[:300], request.headers, str(request.body)[:900]]
    )
