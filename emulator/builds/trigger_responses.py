"""Cloud Build's triggers on the wire: create, get, list, patch and delete, in a region.

Source: the discovery document cloudbuild.v1.
"""

from __future__ import annotations

from aiohttp import web

from emulator.builds.triggers import Triggers
from emulator.wire import json_object, page, page_size

_PAGE = 50


class TriggerResponses:
    """The handlers of triggers."""

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers

    async def list_triggers(self, request: web.Request) -> web.Response:
        """`triggers.list`, sorted by name."""
        found = self._triggers.all(*_place(request))
        size = page_size(request.query.get("pageSize"), _PAGE)
        return web.json_response(page(request, "triggers", found, size))

    async def create(self, request: web.Request) -> web.Response:
        """`triggers.create`."""
        return web.json_response(
            self._triggers.create(*_place(request), await json_object(request))
        )

    async def get(self, request: web.Request) -> web.Response:
        """`triggers.get`."""
        return web.json_response(self._triggers.get(*_trigger(request)))

    async def patch(self, request: web.Request) -> web.Response:
        """`triggers.patch`."""
        body, mask = await json_object(request), request.query.get("updateMask", "")
        return web.json_response(self._triggers.patch(*_trigger(request), body, mask))

    async def delete(self, request: web.Request) -> web.Response:
        """`triggers.delete`."""
        self._triggers.delete(*_trigger(request))
        return web.json_response({})


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["project"], request.match_info["region"]


def _trigger(request: web.Request) -> tuple[str, str, str]:
    return *_place(request), request.match_info["trigger"]
