"""Secret Manager on the wire.

Source: the discovery document secretmanager.v1. IAM policies are `emulator.identity`'s. Absent:
rotation, filters, regional secrets.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from emulator.errors import invalid
from emulator.routes import Asks, On, Route
from emulator.secrets.crc32c import crc32c
from emulator.secrets.models import Secrets

Document = dict[str, Any]

_SECRETS = "/v1/projects/{project}/secrets"
_SECRET = f"{_SECRETS}/{{name:[^/:]+}}"
_VERSION = f"{_SECRET}/versions/{{version:[^/:]+}}"


def routes(secrets: Secrets, forget: Callable[[str, str], None]) -> list[Route]:
    """Return the routes. `forget(project, name)` drops the policy of a deleted secret."""

    def named(request: web.Request) -> tuple[str, str]:
        return request.match_info["project"], request.match_info["name"]

    def version_of(request: web.Request) -> tuple[str, str, str]:
        return *named(request), request.match_info["version"]

    async def create(request: web.Request) -> web.Response:
        name = request.query.get("secretId", "")
        body = await _body(request)
        return web.json_response(secrets.create(request.match_info["project"], name, body))

    async def list_secrets(request: web.Request) -> web.Response:
        found = secrets.all(request.match_info["project"])
        return web.json_response(_page(request, "secrets", found))

    async def get(request: web.Request) -> web.Response:
        return web.json_response(secrets.get(*named(request)))

    async def delete(request: web.Request) -> web.Response:
        secrets.delete(*named(request))
        forget(*named(request))
        return web.json_response({})

    async def patch(request: web.Request) -> web.Response:
        mask = request.query.get("updateMask", "")
        return web.json_response(secrets.patch(*named(request), await _body(request), mask))

    def changes(state: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def change(request: web.Request) -> web.Response:
            return web.json_response(secrets.set_state(*version_of(request), state))

        return change

    async def add_version(request: web.Request) -> web.Response:
        return web.json_response(secrets.add_version(*named(request), await _body(request)))

    async def list_versions(request: web.Request) -> web.Response:
        found = secrets.versions(*named(request))
        return web.json_response(_page(request, "versions", found))

    async def get_version(request: web.Request) -> web.Response:
        return web.json_response(secrets.version(*version_of(request)))

    async def access(request: web.Request) -> web.Response:
        name, value = secrets.value(*version_of(request))
        payload = {
            "data": base64.b64encode(value).decode(),
            "dataCrc32c": str(crc32c(value)),
        }
        return web.json_response({"name": name, "payload": payload})

    of_project = "projects/{project}"
    of_secret = f"{of_project}/secrets/{{name}}"
    lists = Asks("secretmanager.secrets.list", On.PROJECT, of_project)
    creates = Asks("secretmanager.secrets.create", On.PROJECT, of_project)

    def on_secret(permission: str) -> Asks:
        return Asks(f"secretmanager.{permission}", On.SECRET, of_secret)

    def on_version(verb: str) -> Asks:
        resource = f"{of_secret}/versions/{{version}}"
        return Asks(f"secretmanager.versions.{verb}", On.SECRET, resource)

    return [
        Route("GET", _SECRETS, list_secrets, lists),
        Route("POST", _SECRETS, create, creates),
        Route("GET", _SECRET, get, on_secret("secrets.get")),
        Route("PATCH", _SECRET, patch, on_secret("secrets.update")),
        Route("DELETE", _SECRET, delete, on_secret("secrets.delete")),
        Route("POST", f"{_SECRET}:addVersion", add_version, on_secret("versions.add")),
        Route("GET", f"{_SECRET}/versions", list_versions, on_secret("versions.list")),
        Route("GET", _VERSION, get_version, on_version("get")),
        Route("GET", f"{_VERSION}:access", access, on_version("access")),
        Route("POST", f"{_VERSION}:enable", changes("ENABLED"), on_version("enable")),
        Route("POST", f"{_VERSION}:disable", changes("DISABLED"), on_version("disable")),
        Route("POST", f"{_VERSION}:destroy", changes("DESTROYED"), on_version("destroy")),
    ]


async def _body(request: web.Request) -> Document:
    body = json.loads(await request.read() or b"{}")
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    return body


def _page(request: web.Request, what: str, found: list[Document]) -> Document:
    """A page of a list; the token is the name of the last one shown."""
    try:
        size = int(request.query.get("pageSize") or 0)
    except ValueError:
        raise invalid("Expected a number.", "pageSize") from None
    names = [document["name"] for document in found]
    token = request.query.get("pageToken", "")
    if size < 0 or (token and token not in names):
        raise invalid("The page size or token is not valid.", "pageToken")
    start = names.index(token) + 1 if token else 0
    shown = found[start : start + size] if size else found[start:]
    more = start + len(shown) < len(found)
    next_page = {"nextPageToken": shown[-1]["name"]} if more and shown else {}
    return {what: shown, **next_page, "totalSize": len(found)}
