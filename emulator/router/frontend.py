"""The front end of a service: chooses a revision for each request, and an instance of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from aiohttp import web

from emulator.errors import NotAllowed
from emulator.instances.pool import Instances
from emulator.instances.runtime import Instance
from emulator.instances.scaling import NoInstance, Pool
from emulator.instances.start_failures import StartFailed
from emulator.names import Key
from emulator.router import refusals, websocket
from emulator.router.batches import LAUNCH
from emulator.router.headers import REPLACED
from emulator.router.proxy import BadInstance, InstanceGone, Proxy
from emulator.router.split import Split

_BROKEN = (
    "The request failed because either the HTTP response was malformed or connection to the "
    "instance had an error.\n"
)
_NOT_FOUND = "Error: Page not found\nThe requested URL was not found on this server.\n"
_RESERVED = (
    "Error: Page not found\nThe requested URL was not found on this server.\n\n"
    "(Google's front end answers /healthz itself on Cloud Run, and so does this one: the request "
    "never reaches a container. Serve the check at another path, such as /health, as well. See "
    "https://cloud.google.com/run/docs/known-issues#ah.)\n"
)
_NO_INSTANCE = "The request was aborted because there was no available instance.\n"
_TOO_LATE = "upstream request timeout\n"
_TRIES = 3
_LAST_WORDS = 1.0


class Frontend:
    """Answers the requests to a service, at its own URL (tag "") and at its tags' URLs.

    `allow(headers)` returns headers that replace the request's; it raises NotAllowed for a caller
    who may not invoke the service.
    """

    def __init__(
        self,
        instances: Instances,
        proxy: Proxy,
        allow: Callable[[Mapping[str, str]], dict[str, str]],
    ) -> None:
        self._allow = allow
        self._instances = instances
        self._proxy = proxy
        self._splits: dict[str, Split] = {}

    def route(self, splits: dict[str, Split]) -> None:
        """Use these splits, by tag, from the next request on."""
        self._splits = splits

    async def answer(self, tag: str, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request to the URL of the service (tag "") or of a tag."""
        if request.path == "/healthz":
            return refusals.page(404, _RESERVED)
        split = self._splits.get(tag)
        if split is None:
            return refusals.page(404, _NOT_FOUND) if tag else refusals.page(503, _BROKEN)
        try:
            request[REPLACED] = self._allow(request.headers)
        except NotAllowed as refusal:
            return refusals.not_allowed(refusal, request.path)
        pool = self._instances.pool(split.choose())
        if pool is None:
            return refusals.page(503, _BROKEN)
        request[LAUNCH] = pool.launch
        try:
            return await self._from(pool, request)
        except (StartFailed, InstanceGone, BadInstance):
            return refusals.page(503, _BROKEN)
        except NoInstance:
            return refusals.page(429, _NO_INSTANCE)
        except TimeoutError:
            return refusals.page(504, _TOO_LATE)

    async def _from(self, pool: Pool, request: web.BaseRequest) -> web.StreamResponse:
        for _ in range(_TRIES):
            member = pool.take() or await pool.queue()
            try:
                timeout = pool.launch.request_timeout
                if websocket.is_websocket(request):
                    return await websocket.forward(self._proxy, request, member.instance, timeout)
                return await self._proxy.forward(request, member.instance, timeout)
            except InstanceGone:
                # Nothing was sent: another instance can answer it.
                pool.drop(member)
                await _see_off(member.instance)
            finally:
                pool.release(member)
        raise InstanceGone


async def _see_off(instance: Instance) -> None:
    """Stop an instance that no longer listens, usually because it is about to exit."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(instance.exited.wait(), _LAST_WORDS)
    if not instance.exited.is_set():
        await instance.stop(0.0)


def revisions_of(splits: dict[str, Split]) -> set[Key]:
    """Return every revision that a request can reach."""
    return {revision for split in splits.values() for revision in split.revisions}
