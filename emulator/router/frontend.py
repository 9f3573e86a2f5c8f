"""The front end of one service: from its listeners to an instance of the revision chosen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from aiohttp import web

from emulator.identity.invoker import NotAllowed
from emulator.instances.pool import Instances
from emulator.instances.runtime import Instance
from emulator.instances.scaling import NoInstance, Pool
from emulator.instances.start_failures import StartFailed
from emulator.names import Key
from emulator.router import websocket
from emulator.router.headers import REPLACED
from emulator.router.proxy import BadInstance, InstanceGone, Proxy
from emulator.router.served import LAUNCH
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
    """What a service answers at its own URL (tag "") and at its tags' URLs.

    `allow(path, headers)` raises NotAllowed, or returns headers to put in the place of the
    request's own.
    """

    def __init__(
        self,
        instances: Instances,
        proxy: Proxy,
        allow: Callable[[str, Mapping[str, str]], dict[str, str]],
    ) -> None:
        self._allow = allow
        self._instances = instances
        self._proxy = proxy
        self._splits: dict[str, Split] = {}

    def route(self, splits: dict[str, Split]) -> None:
        """From the next request on, answer by these splits and no others."""
        self._splits = splits

    async def answer(self, tag: str, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that came to the service's (tag "") or a tag's URL."""
        if request.path == "/healthz":
            return _page(404, _RESERVED)
        split = self._splits.get(tag)
        if split is None:
            return _page(404, _NOT_FOUND) if tag else _page(503, _BROKEN)
        try:
            request[REPLACED] = self._allow(request.path, request.headers)
        except NotAllowed as refusal:
            return web.Response(
                status=refusal.status,
                text=refusal.page(),
                content_type="text/html",
                headers={"Server": "Google Frontend", **refusal.headers()},
            )
        pool = self._instances.pool(split.choose())
        if pool is None:
            return _page(503, _BROKEN)
        request[LAUNCH] = pool.launch
        try:
            return await self._from(pool, request)
        except (StartFailed, InstanceGone, BadInstance):
            return _page(503, _BROKEN)
        except NoInstance:
            return _page(429, _NO_INSTANCE)
        except TimeoutError:
            return _page(504, _TOO_LATE)

    async def _from(self, pool: Pool, request: web.BaseRequest) -> web.StreamResponse:
        for _ in range(_TRIES):
            member = pool.take() or await pool.queue()
            try:
                timeout = pool.launch.request_timeout
                if websocket.is_websocket(request):
                    return await websocket.forward(self._proxy, request, member.instance, timeout)
                return await self._proxy.forward(request, member.instance, timeout)
            except InstanceGone:
                # Nothing was sent: another instance may have it.
                pool.drop(member)
                await _see_off(member.instance)
            finally:
                pool.release(member)
        raise InstanceGone


async def _see_off(instance: Instance) -> None:
    """End an instance that no longer listens; most likely it is about to end by itself."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(instance.exited.wait(), _LAST_WORDS)
    if not instance.exited.is_set():
        await instance.stop(0.0)


def _page(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers={"Server": "Google Frontend"})


def revisions_of(splits: dict[str, Split]) -> set[Key]:
    """Every revision that a request can reach."""
    return {revision for split in splits.values() for revision in split.revisions}
