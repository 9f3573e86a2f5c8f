"""Cloud Build's triggers on the wire: create, get, list, patch, delete, in a region.

Source: the discovery document cloudbuild.v1. A connection to a repository is taken for granted.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from aiohttp import web

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.names import project_number
from emulator.routes import Asks, On, Route
from emulator.store import Store

Document = dict[str, Any]

_TRIGGERS = "/v1/projects/{project}/locations/{region}/triggers"
_TRIGGER = f"{_TRIGGERS}/{{trigger:[^/:]+}}"
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?")
_FIXED = {"createTime", "id", "resourceName"}
_PAGE = 50


class Triggers:
    """The triggers of every project and region."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str], Document] = {}
        for entry in store.documents("triggers"):
            key = (entry["number"], entry["region"], entry["trigger"]["id"])
            self._known[key] = entry["trigger"]

    def routes(self) -> list[Route]:
        """The routes of triggers.

        Source: https://cloud.google.com/build/docs/iam-roles-permissions#permissions.
        """

        def asks(verb: str) -> Asks:
            place = "projects/{project}/locations/{region}"
            return Asks(f"cloudbuild.builds.{verb}", On.PROJECT, place)

        return [
            Route("GET", _TRIGGERS, self.list_triggers, asks("list")),
            Route("POST", _TRIGGERS, self.create, asks("create")),
            Route("GET", _TRIGGER, self.get, asks("get")),
            Route("PATCH", _TRIGGER, self.patch, asks("update")),
            Route("DELETE", _TRIGGER, self.delete, asks("update")),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """`triggers.create`; a name is used once in a region."""
        number, region = _place(request)
        body = {name: value for name, value in (await _body(request)).items() if name not in _FIXED}
        identity = str(uuid.uuid4())
        body.setdefault("name", f"trigger-{identity[:8]}")
        _check(body)
        if any(one["name"] == body["name"] for one in self._of(number, region)):
            raise ApiError(
                "ALREADY_EXISTS",
                f"trigger in project {number} with name {body['name']} already exists",
            )
        trigger = {
            **body,
            "id": identity,
            "createTime": clock.now(),
            "resourceName": f"projects/{number}/locations/{region}/triggers/{identity}",
        }
        return self._kept(number, region, trigger)

    async def get(self, request: web.Request) -> web.Response:
        """`triggers.get`, by ID or by name."""
        return web.json_response(self._found(request))

    async def list_triggers(self, request: web.Request) -> web.Response:
        """`triggers.list`, by name."""
        found = sorted(self._of(*_place(request)), key=lambda one: str(one["name"]))
        found = [one for one in found if one["name"] > request.query.get("pageToken", "")]
        size = request.query.get("pageSize") or "0"
        if not size.isdecimal():
            raise invalid("Expected a number.", "pageSize")
        page = found[: int(size) or _PAGE]
        more = {"nextPageToken": page[-1]["name"]} if len(found) > len(page) else {}
        return web.json_response({**({"triggers": page} if page else {}), **more})

    async def patch(self, request: web.Request) -> web.Response:
        """`triggers.patch`: the fields that the mask names, or those that are sent."""
        current, body = self._found(request), await _body(request)
        mask = request.query.get("updateMask", "")
        names = {part.partition(".")[0] for part in mask.split(",") if part} or {*body}
        changed = {name: value for name, value in current.items() if name not in names - _FIXED}
        changed |= {name: body[name] for name in names - _FIXED if name in body}
        _check(changed)
        return self._kept(*_place(request), changed)

    async def delete(self, request: web.Request) -> web.Response:
        """`triggers.delete`."""
        number, region = _place(request)
        trigger = self._found(request)
        self._store.delete(_file(number, region, trigger["id"]))
        del self._known[number, region, trigger["id"]]
        return web.json_response({})

    def _of(self, number: str, region: str) -> list[Document]:
        return [one for key, one in self._known.items() if key[:2] == (number, region)]

    def _found(self, request: web.Request) -> Document:
        asked = request.match_info["trigger"]
        for one in self._of(*_place(request)):
            if asked in (one["id"], one["name"]):
                return one
        raise ApiError("NOT_FOUND", "Requested entity was not found.")

    def _kept(self, number: str, region: str, trigger: Document) -> web.Response:
        entry = {"number": number, "region": region, "trigger": trigger}
        self._store.write(_file(number, region, trigger["id"]), entry)
        self._known[number, region, trigger["id"]] = trigger
        return web.json_response(trigger)


def _place(request: web.Request) -> tuple[str, str]:
    return project_number(request.match_info["project"]), request.match_info["region"]


def _file(number: str, region: str, identity: str) -> str:
    return f"triggers/{number}/{region}/{identity}.json"


def _check(trigger: Document) -> None:
    if not _NAME.fullmatch(str(trigger.get("name", ""))):
        raise invalid("must be 1 to 64 letters, digits and hyphens.", "name")
    if not any(
        trigger.get(field) for field in ("build", "filename", "gitFileSource", "autodetect")
    ):
        raise invalid("a build, a filename or a gitFileSource is required.", "trigger")
    if not trigger.get("serviceAccount"):
        # Since 2024, Google's too, wherever a project has no legacy account of Cloud Build.
        raise invalid(
            "service account must be specified. For more information, see "
            "https://cloud.google.com/build/docs/cloud-build-service-account-updates",
        )


async def _body(request: web.Request) -> Document:
    body = json.loads(await request.read() or b"{}")
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    return body
