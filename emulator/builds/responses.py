"""Builds on the wire: create, get, list and cancel, in a region or without one.

Source: the discovery document cloudbuild.v1. Without a region, `global` is meant.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from emulator.builds.models import Builds, operation, submitted
from emulator.names import default_service_account
from emulator.wire import from_token, json_object, page_size, to_token

_PAGE = 100


class Responses:
    """The handlers of builds and their operations."""

    def __init__(self, builds: Builds) -> None:
        self._builds = builds

    async def create(self, request: web.Request) -> web.Response:
        """`builds.create`."""
        body = await json_object(request)
        return web.json_response(
            await asyncio.to_thread(self._builds.create, *_place(request), body)
        )

    async def get(self, request: web.Request) -> web.Response:
        """`builds.get`."""
        return web.json_response(self._builds.get(*_place(request), request.match_info["build"]))

    async def list_builds(self, request: web.Request) -> web.Response:
        """`builds.list`, the newest first."""
        found = self._builds.all(*_place(request), request.query.get("filter", ""))
        size = page_size(request.query.get("pageSize"), _PAGE)
        token = request.query.get("pageToken", "")
        try:
            start = int(from_token(token)) if token else 0
        except ValueError:
            start = 0
        shown = found[start : start + size]
        more = {"nextPageToken": to_token(str(start + size))} if found[start + size :] else {}
        return web.json_response({**({"builds": shown} if shown else {}), **more})

    async def cancel(self, request: web.Request) -> web.Response:
        """`builds.cancel`."""
        build = request.match_info["build"]
        return web.json_response(
            await asyncio.to_thread(self._builds.cancel, *_place(request), build)
        )

    async def submit(self, request: web.Request) -> web.Response:
        """`projects.locations.builds.submit` of Cloud Run v2, for `gcloud run deploy --source`."""
        build = submitted(await json_object(request))
        started = await asyncio.to_thread(self._builds.create, *_place(request), build)
        return web.json_response({"buildOperation": started})

    async def default_account(self, request: web.Request) -> web.Response:
        """`locations.getDefaultServiceAccount`: the account of builds that name none."""
        project, region = _place(request)
        email = default_service_account(project)
        return web.json_response(
            {
                "name": f"projects/{project}/locations/{region}/defaultServiceAccount",
                "serviceAccountEmail": f"projects/{project}/serviceAccounts/{email}",
            }
        )

    async def operation(self, request: web.Request) -> web.Response:
        """`operations.get`: a build's operation has the build's ID."""
        build = self._builds.get(*_place(request), request.match_info["build"])
        return web.json_response(operation(build))


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["project"], request.match_info.get("region", "global")
