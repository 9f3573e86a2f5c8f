"""Records requests and answers of the APIs, to check them against Google's documents.

Off unless SHIPWAY_RECORD names a file. Each line is a JSON object: the request, the permission that
it asks for, and the answer. Of the headers it has only the user agent; of tokens and secret values
only the type.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from emulator import routes
from emulator.wire import Pieces

VARIABLE = "SHIPWAY_RECORD"

# Paths of APIs with a discovery document start with a version. The registry's do so, too, but
# belong to the OCI distribution specification.
_API = re.compile(r"/(apis|v\d\w*|((resumable/)?upload/)?storage/v1)/")
_REGISTRY = re.compile(r"/v2/(_catalog|token|.+/(manifests|blobs|tags|referrers)/.*)?")
_UPLOAD = re.compile(r"/(resumable/)?upload/")
_SECRET = {
    "accessToken", "access_token", "actor_token", "actorToken", "assertion", "data", "id_token",
    "signedBlob", "signedJwt", "subject_token", "subjectToken", "token",
}  # fmt: skip
_MASK = "bWFza2Vk"  # "masked" in base64, which the values of secrets are in


def middlewares() -> list[Middleware]:
    """Return the recorder as a middleware if SHIPWAY_RECORD names a file."""
    name = os.environ.get(VARIABLE)
    return [_recorder(Path(name))] if name else []


def _recorder(file: Path) -> Middleware:
    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if not _API.match(path) or _REGISTRY.fullmatch(path):
            return await handler(request)
        try:
            # The contents of an object are not kept: the handler reads them as they come.
            body = b"" if _UPLOAD.match(path) else await request.read()
        except web.RequestPayloadError:
            return await handler(request)  # reads it, too, and answers
        try:
            response = await handler(request)
        except web.HTTPException as error:
            _write(file, request, body, error)
            raise
        _write(file, request, body, response)
        return response

    return record


def _write(file: Path, request: web.Request, body: bytes, response: web.StreamResponse) -> None:
    sent = getattr(response, "body", None)
    if isinstance(response, Pieces):
        sent = json.dumps(response.documents).encode()
    line = {
        "method": request.method,
        "path": request.rel_url.raw_path,
        "query": parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True),
        "agent": request.headers.get("User-Agent", ""),
        "permission": asks.permission if (asks := routes.asked(request)) else "",
        "request": _readable(body, request.content_type),
        "status": response.status,
        "response": _readable(
            bytes(sent) if isinstance(sent, bytes | bytearray) else b"", "application/json"
        ),
    }
    # One write, so that several processes can share the file.
    with file.open("ab", buffering=0) as out:
        out.write(json.dumps(line).encode() + b"\n")


def _readable(body: bytes, content_type: str) -> Any:
    text = body.decode("utf-8", "replace")
    if content_type == "application/x-www-form-urlencoded":
        return _masked(dict(parse_qsl(text)))
    try:
        return _masked(json.loads(text)) if text else None
    except (ValueError, RecursionError):
        return "(not JSON)"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _MASK if name in _SECRET and isinstance(item, str) else _masked(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return value
