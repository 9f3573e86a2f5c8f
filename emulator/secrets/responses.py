"""The wire format of Secret Manager.

Source: the discovery document secretmanager.v1. `emulator.identity` serves the IAM policies.
Absent: rotation, filters, regional secrets.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TypedDict

from aiohttp import web

from emulator.errors import invalid
from emulator.fields import typed
from emulator.routes import Handler
from emulator.secrets.crc32c import crc32c
from emulator.secrets.models import Secrets
from emulator.wire import Document, json_object, page_size


class _Payload(TypedDict, total=False):
    data: str
    dataCrc32c: int


class _AddVersion(TypedDict, total=False):
    payload: _Payload


class Responses:
    """The handlers of Secret Manager's API.

    `forget(project, name)` drops the policy of a deleted secret.
    """

    def __init__(self, secrets: Secrets, forget: Callable[[str, str], None]) -> None:
        self._secrets = secrets
        self._forget = forget

    async def create(self, request: web.Request) -> web.Response:
        """`secrets.create`."""
        name = request.query.get("secretId", "")
        body = await json_object(request)
        return web.json_response(self._secrets.create(request.match_info["project"], name, body))

    async def list_secrets(self, request: web.Request) -> web.Response:
        """`secrets.list`."""
        return _page(request, "secrets", self._secrets.all(request.match_info["project"]))

    async def get(self, request: web.Request) -> web.Response:
        """`secrets.get`."""
        return web.json_response(self._secrets.get(*_secret(request)))

    async def patch(self, request: web.Request) -> web.Response:
        """`secrets.patch`."""
        body, mask = await json_object(request), request.query.get("updateMask", "")
        return web.json_response(self._secrets.patch(*_secret(request), body, mask))

    async def delete(self, request: web.Request) -> web.Response:
        """`secrets.delete`."""
        self._secrets.delete(*_secret(request))
        self._forget(*_secret(request))
        return web.json_response({})

    async def add_version(self, request: web.Request) -> web.Response:
        """`secrets.addVersion`."""
        body = await json_object(request)
        self._secrets.get(*_secret(request))
        value, checked = _value(body)
        added = self._secrets.add_version(*_secret(request), value, checked=checked)
        return web.json_response(added)

    async def list_versions(self, request: web.Request) -> web.Response:
        """`secrets.versions.list`."""
        return _page(request, "versions", self._secrets.versions(*_secret(request)))

    async def get_version(self, request: web.Request) -> web.Response:
        """`secrets.versions.get`."""
        return web.json_response(self._secrets.version(*_version(request)))

    async def access(self, request: web.Request) -> web.Response:
        """`secrets.versions.access`: the value."""
        name, value = self._secrets.value(*_version(request))
        payload = {"data": base64.b64encode(value).decode(), "dataCrc32c": str(crc32c(value))}
        return web.json_response({"name": name, "payload": payload})

    def change(self, state: str) -> Handler:
        """Return the handler that makes a version ENABLED, DISABLED or DESTROYED."""

        async def handler(request: web.Request) -> web.Response:
            return web.json_response(self._secrets.set_state(*_version(request), state))

        return handler


def _secret(request: web.Request) -> tuple[str, str]:
    return request.match_info["project"], request.match_info["name"]


def _version(request: web.Request) -> tuple[str, str, str]:
    return *_secret(request), request.match_info["version"]


def _value(body: Document) -> tuple[bytes, bool]:
    """Return the value in a request to add a version, and whether the request has a checksum."""
    payload = typed(body, _AddVersion).get("payload")
    if payload is None:
        raise invalid("The payload is required.", "payload")
    data = payload.get("data", "").replace("-", "+").replace("_", "/")
    try:
        value = base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        raise invalid("Base64 decoding failed.", "payload.data") from None
    checksum = payload.get("dataCrc32c")
    if checksum is not None and checksum != crc32c(value):
        raise invalid("The checksum is not the value's.", "payload.data_crc32c")
    return value, checksum is not None


def _page(request: web.Request, field: str, found: list[Document]) -> web.Response:
    """Answer with a page of a list. The token is the name of the last item of the page before."""
    size = page_size(request.query.get("pageSize"), len(found))
    names = [document["name"] for document in found]
    token = request.query.get("pageToken", "")
    if token and token not in names:
        raise invalid("The page token is not valid.", "pageToken")
    start = names.index(token) + 1 if token else 0
    shown = found[start : start + size]
    more = start + len(shown) < len(found)
    next_page = {"nextPageToken": shown[-1]["name"]} if more else {}
    return web.json_response({field: shown, **next_page, "totalSize": len(found)})
