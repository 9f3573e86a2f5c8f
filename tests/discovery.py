"""Check the requests and responses of the APIs against Google's own discovery documents.

google-api-python-client ships the documents. `emulator.recorder` writes requests and responses down
while the tests run. Here each is compared with the method that its path and HTTP method name. The
requests of Shipway's own commands are checked (other clients answer for theirs), and all responses.
"""

from __future__ import annotations

import base64
import binascii
import functools
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

OURS = "shipway"
DOCUMENTS = (
    "run.v1",
    "run.v2",
    "artifactregistry.v1",
    "sts.v1",
    "iam.v1",
    "iamcredentials.v1",
    "secretmanager.v1",
    "logging.v2",
    "monitoring.v3",
    "serviceusage.v1",
    "cloudresourcemanager.v1",
    "cloudresourcemanager.v3",
    "cloudbuild.v1",
    "storage.v1",
    "binaryauthorization.v1",
)
# Read only for paths that have this part: their documents are as large as all others together.
_MODELS = "/publishers/"
_OF_MODELS = ("aiplatform.v1", "aiplatform.v1beta1")
# Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto.
_CODES = {
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
}  # fmt: skip
_FORMATS = {
    "google-datetime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)"),
    "google-duration": re.compile(r"-?\d+(\.\d{1,9})?s"),
    "int64": re.compile(r"-?\d+"),
    "uint64": re.compile(r"\d+"),
}
_STORAGE = ("/storage/", "/upload/storage/", "/resumable/upload/storage/")
Object = dict[str, Any]


class Method(NamedTuple):
    """One method of an API."""

    api: str
    id: str
    verb: str
    path: re.Pattern[str]
    literal: int
    """How many characters of the path are not parameters: the more, the more specific it is."""
    parameters: Object
    request: str | None
    response: str | None


@functools.cache
def document_of(name: str) -> Object:
    """Return a discovery document: "run.v2"."""
    package = importlib.util.find_spec("googleapiclient")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "discovery_cache" / "documents"
    document: Object = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return document


@functools.cache
def _methods(names: tuple[str, ...]) -> list[Method]:
    def walk(name: str, place: Object, common: Object) -> Iterator[Method]:
        start = "/" + document_of(name).get("servicePath", "")
        for method in place.get("methods", {}).values():
            path = start + (method.get("flatPath") or method["path"])
            uploads = method.get("mediaUpload", {}).get("protocols", {})
            for kind in uploads.values():
                # Its body is an object's contents, or a piece of them.
                for verb in ("POST", "PUT"):
                    upload = {**method, "httpMethod": verb, "request": {}}
                    yield from walk_one(name, upload, kind["path"], common)
            if names is DOCUMENTS or _MODELS in path:
                yield from walk_one(name, method, path, common)
        for child in place.get("resources", {}).values():
            yield from walk(name, child, common)

    def walk_one(name: str, method: Object, path: str, common: Object) -> Iterator[Method]:
        parts = re.split(r"(\{[^}]*\})", path)
        pattern = "".join(
            re.escape(part) if index % 2 == 0 else ".+" if "+" in part else "[^/]+"
            for index, part in enumerate(parts)
        )
        query = {
            key: what
            for key, what in method.get("parameters", {}).items()
            if what["location"] == "query"
        }
        yield Method(
            name, method["id"], method["httpMethod"], re.compile(pattern),
            sum(map(len, parts[::2])), {**common, **query},
            method.get("request", {}).get("$ref"), method.get("response", {}).get("$ref"),
        )  # fmt: skip

    documents = ((name, document_of(name)) for name in names)
    return [method for name, one in documents for method in walk(name, one, one["parameters"])]


@functools.lru_cache(maxsize=4096)
def methods(verb: str, path: str) -> tuple[Method, ...]:
    """Return the methods that a request may call: the most specific one of each API."""
    found: dict[str, Method] = {}
    for method in _methods(_OF_MODELS if _MODELS in path else DOCUMENTS):
        if method.verb == verb and method.path.fullmatch(path):
            known = found.get(method.api)
            if known is None or method.literal > known.literal:
                found[method.api] = method
    return tuple(found.values())


def violations(record: Object) -> list[str]:
    """Return a sentence for each violation in one recorded exchange."""
    what = f"{record['method']} {record['path']} ({record['status']})"
    candidates = methods(record["method"], record["path"])
    if not candidates:
        if record["agent"] == OURS:
            return [f"{what}: we ask what no discovery document has"]
        if record["status"] < 400:
            return [f"{what}: we answer what no discovery document has"]
        return [f"{what}: {problem}" for problem in _error(record)]
    # A path may belong to several APIs, such as /v1/projects/P/locations: one of them is meant.
    outcomes = [[f"{what}: {p}" for p in _against(method, record)] for method in candidates]
    return min(outcomes, key=len)


def _against(method: Method, record: Object) -> list[str]:
    problems: list[str] = []
    if record["agent"] == OURS:
        for name, value in record["query"]:
            if name not in method.parameters:
                problems.append(f"{method.id} has no parameter {name}")
            else:
                kind = method.parameters[name]
                problems += _text(kind, value, f"parameter {name} of {method.id}")
        if method.request:
            problems += _schema(method.api, method.request, record["request"], "request")
        elif record["request"] is not None:
            problems.append(f"{method.id} takes no body")
    if record["status"] >= 400:
        problems += _error(record)
    elif method.response and not {("alt", "media"), ("uploadType", "resumable")} & {
        (name, value) for name, value in record["query"]
    }:
        pieces = method.id.endswith(".streamGenerateContent")
        for one in record["response"] if pieces else [record["response"]]:
            problems += _schema(method.api, method.response, one, "response")
    return problems


def _error(record: Object) -> Iterator[str]:
    """Return the violations in an error's body.

    Source: https://cloud.google.com/apis/design/errors; for sts.v1, RFC 6749 section 5.2.
    """
    body = record["response"]
    if not isinstance(body, dict) or "error" not in body:
        yield f"an error without an error object: {body!r}"
        return
    error = body["error"]
    if isinstance(error, str) and record["path"] == "/v1/token":
        if set(body) - {"error", "error_description", "error_uri"}:
            yield f"not an OAuth error: {sorted(body)}"
        return
    if record["path"].startswith(_STORAGE):
        # https://cloud.google.com/storage/docs/json_api/v1/status-codes
        if {*error} != {"code", "message", "errors"} or error["code"] != record["status"]:
            yield f"not Cloud Storage's error object: {error!r}"
        return
    if not isinstance(error, dict) or set(error) - {"code", "message", "status", "details"}:
        yield f"not Google's error object: {error!r}"
        return
    if error.get("code") != record["status"]:
        yield f"error.code is {error.get('code')!r}"
    if error.get("status") not in _CODES:
        yield f"error.status is {error.get('status')!r}"
    if not isinstance(error.get("message"), str) or not error["message"]:
        yield "error.message is missing"
    for detail in error.get("details", []):
        if not str(detail.get("@type", "")).startswith("type.googleapis.com/"):
            yield f"a detail without its type: {detail!r}"


def _text(kind: Object, value: str, where: str) -> list[str]:
    """Return a parameter's value as text on the wire."""
    if kind["type"] == "integer" and not re.fullmatch(r"-?\d+", value):
        return [f"{where} is {value!r}, no integer"]
    if kind["type"] == "boolean" and value not in ("true", "false"):
        return [f"{where} is {value!r}, no boolean"]
    if "enum" in kind and value not in kind["enum"]:
        return [f"{where} is {value!r}, none of {kind['enum']}"]
    return []


def problems_of(api: str, schema: str, value: Any) -> list[str]:
    """Return a document's violations of Google's schema, such as "Build" of "cloudbuild.v1"."""
    return _schema(api, schema, value, schema)


def _schema(api: str, name: str, value: Any, where: str) -> list[str]:
    return list(_typed(api, document_of(api)["schemas"][name], value, where))


def _typed(api: str, kind: Object, value: Any, where: str) -> Iterator[str]:
    """Compare a value with a schema; a sentence for each unknown field and each wrong type."""
    if "$ref" in kind:
        kind = document_of(api)["schemas"][kind["$ref"]]
    match kind["type"]:
        case "any":
            return
        case "object":
            if not isinstance(value, dict):
                yield f"{where} is {_short(value)}, no object"
                return
            known, more = kind.get("properties", {}), kind.get("additionalProperties")
            for key, item in value.items():
                inner = known.get(key, more)
                if inner is None:
                    yield f"{where}.{key} is unknown to {kind.get('id', 'the document')}"
                else:
                    yield from _typed(api, inner, item, f"{where}.{key}")
        case "array":
            if not isinstance(value, list):
                yield f"{where} is {_short(value)}, no list"
                return
            for index, item in enumerate(value):
                yield from _typed(api, kind["items"], item, f"{where}[{index}]")
        case simple:
            if not _is(simple, kind, value):
                yield f"{where} is {_short(value)}, not {kind.get('format', simple)}"
            elif "enum" in kind and value not in kind["enum"]:
                yield f"{where} is {value!r}, none of {kind['enum']}"


def _is(simple: str, kind: Object, value: Any) -> bool:
    format_ = kind.get("format", "")
    if simple == "boolean":
        return isinstance(value, bool)
    if simple == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if simple == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    if format_ == "byte":
        try:
            base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
        except binascii.Error:
            return False
        return True
    return format_ not in _FORMATS or bool(_FORMATS[format_].fullmatch(value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"


class Watch:
    """Reads what is recorded in `file`, each line once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self.exchanges = 0

    def news(self) -> list[str]:
        """Return the violations that were recorded since the last call."""
        if not self._file.exists() or self._file.stat().st_size == self._read:
            return []
        with self._file.open("rb") as file:
            file.seek(self._read)
            lines = [line for line in file if line.endswith(b"\n")]
        self._read += sum(map(len, lines))
        self.exchanges += len(lines)
        # Report the same violation once.
        return list(dict.fromkeys(p for line in lines for p in violations(json.loads(line))))
