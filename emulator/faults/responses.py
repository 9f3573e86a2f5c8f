"""Faults on the wire: requests that start and end them, and the header that one changes."""

from __future__ import annotations

import time
from email.utils import formatdate

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from emulator.errors import invalid
from emulator.faults.models import Faults
from emulator.faults.settings import from_document
from emulator.routes import Handler
from emulator.wire import json_object


class Responses:
    """The handlers of `/_local/faults` and `/_local/calls`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def list_faults(self, _request: web.Request) -> web.Response:
        """`GET /_local/faults`."""
        return web.json_response({"faults": self._faults.all()})

    async def start(self, request: web.Request) -> web.Response:
        """`POST /_local/faults`."""
        fault = from_document(await json_object(request))
        self._faults.start(fault)
        return web.json_response(msgspec.to_builtins(fault))

    async def end(self, request: web.Request) -> web.Response:
        """`DELETE /_local/faults/NAME`."""
        self._faults.end(request.match_info["name"])
        return web.json_response({})

    async def list_calls(self, request: web.Request) -> web.Response:
        """`GET /_local/calls`: the newest 10,000, or those with a number above `after`."""
        after = request.query.get("after", "0")
        if not after.isdecimal():
            raise invalid("Expected a number.", "after")
        made = [call for call in self._faults.calls.made if call.number > int(after)]
        return web.json_response({"calls": msgspec.to_builtins(made)})


def clock(faults: Faults) -> Middleware:
    """Return the middleware that sets the Date header by Google's clock."""

    @web.middleware
    async def set_date(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if skew := faults.skew():
            response.headers["Date"] = formatdate(time.time() + skew, usegmt=True)
        return response

    return set_date
