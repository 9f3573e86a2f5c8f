"""Faults on the wire: requests that start and end them, and the header that one changes."""

from __future__ import annotations

import time
from email.utils import formatdate

from aiohttp import web
from aiohttp.typedefs import Middleware

from emulator.faults.models import Faults
from emulator.routes import Handler
from emulator.wire import json_object


class Responses:
    """The handlers of `/_local/faults`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def list_faults(self, _request: web.Request) -> web.Response:
        """`GET /_local/faults`."""
        return web.json_response({"faults": self._faults.all()})

    async def start(self, request: web.Request) -> web.Response:
        """`POST /_local/faults`."""
        body = await json_object(request)
        self._faults.start(body)
        return web.json_response(body)

    async def end(self, request: web.Request) -> web.Response:
        """`DELETE /_local/faults/NAME`."""
        self._faults.end(request.match_info["name"])
        return web.json_response({})


def clock(faults: Faults) -> Middleware:
    """Return the middleware that sets the Date header by Google's clock."""

    @web.middleware
    async def set_date(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if skew := faults.skew():
            response.headers["Date"] = formatdate(time.time() + skew, usegmt=True)
        return response

    return set_date
