"""Listeners: a loopback port for each service and each tag, the same after a restart."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Mapping

from aiohttp import web

from emulator.front_door import Hosts
from emulator.instances.pool import Instances
from emulator.names import Key
from emulator.ports import Ports
from emulator.router.batches import RequestBatches
from emulator.router.frontend import Frontend
from emulator.router.proxy import Proxy
from emulator.router.split import Split
from emulator.store import Store

_FILE = "ports.json"
_LONGEST_HEADER = 64 * 1024

Check = Callable[[Key, str, Mapping[str, str]], dict[str, str]]


class _Listener:
    def __init__(self, server: web.Server, door: asyncio.Server, port: int) -> None:
        self.server = server
        self.door = door
        self.port = port

    async def close(self, patience: float) -> None:
        """Take no more connections; wait up to `patience` seconds for open requests."""
        self.door.close()
        # Without this, it would wait for idle connections, too.
        self.server.pre_shutdown()
        await self.server.shutdown(patience)


class Router:
    """The front ends of all services.

    Args:
        instances: The instances that answer.
        ports: Where free ports come from.
        store: Where the ports of services and tags are stored.
        check: `check(service, url, headers)` returns headers that replace the request's; it raises
            NotAllowed for a caller who may not invoke the service.
        batches: Takes the requests that were served.
        hosts: The names of this machine. Which pages may use a service is the service's affair.
    """

    def __init__(
        self,
        instances: Instances,
        ports: Ports,
        store: Store,
        check: Check,
        batches: RequestBatches,
        hosts: Hosts,
    ) -> None:
        self._hosts = hosts
        self._check = check
        self._instances = instances
        self._ports = ports
        self._store = store
        self._batches = batches
        self._proxy = Proxy()
        self._frontends: dict[Key, Frontend] = {}
        self._listeners: dict[tuple[Key, str], _Listener] = {}
        self._remembered: dict[str, int] = store.read(_FILE) or {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, service: Key, tags: set[str]) -> None:
        """Listen for a service and its tags. Tags that it had before keep their listeners."""
        frontend = self._frontends.get(service)
        if frontend is None:
            allow = functools.partial(self._allow, service)
            frontend = Frontend(self._instances, self._proxy, allow)
            self._frontends[service] = frontend
        wanted = {"", *tags}
        for tag in sorted(wanted):
            if (service, tag) not in self._listeners:
                self._listeners[service, tag] = await self._listen(frontend, service, tag)
        self._remember()

    def close_tags(self, service: Key, keep: set[str]) -> None:
        """Stop listening for the tags of a service that are not in `keep`."""
        gone = [at for at in self._listeners if at[0] == service and at[1] not in {"", *keep}]
        self._forget(gone)

    def close_service(self, service: Key) -> None:
        """Stop listening for a service that was deleted; open requests are finished."""
        self._frontends.pop(service, None)
        self._forget([at for at in self._listeners if at[0] == service])

    def _forget(self, gone: list[tuple[Key, str]]) -> None:
        for at in gone:
            self._remembered.pop(_name(*at), None)
            listener = self._listeners.pop(at)
            task = asyncio.create_task(listener.close(300.0))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if gone:
            self._remember(changed=True)

    def route(self, service: Key, splits: dict[str, Split]) -> None:
        """Use `splits` for a service (by tag, "" for its own URL) from the next request on."""
        self._frontends[service].route(splits)

    def url(self, service: Key, tag: str = "") -> str:
        """Return the URL of a service or tag that has a listener."""
        return f"http://127.0.0.1:{self._listeners[service, tag].port}"

    def _allow(self, service: Key, headers: Mapping[str, str]) -> dict[str, str]:
        return self._check(service, self.url(service), headers)

    async def _listen(self, frontend: Frontend, service: Key, tag: str) -> _Listener:
        observed = functools.partial(
            self._batches.observed, functools.partial(frontend.answer, tag)
        )
        server = web.Server(
            self._hosts.only(observed),
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )
        before = self._remembered.get(_name(service, tag))
        for port in [before] if before else []:
            door = await _bind(server, port)
            if door is not None:
                return _Listener(server, door, port)
        while True:
            port = self._ports.free()
            door = await _bind(server, port)
            if door is not None:
                return _Listener(server, door, port)

    def _remember(self, *, changed: bool = False) -> None:
        ports = {_name(*at): listener.port for at, listener in self._listeners.items()}
        # Services that are not open yet after a restart keep their ports.
        services = {_name(service, "") for service in self._frontends}
        kept = {k: v for k, v in self._remembered.items() if k.partition("#")[0] not in services}
        if changed or ports | kept != self._remembered:
            self._remembered = ports | kept
            self._store.write(_FILE, self._remembered)

    async def close(self) -> None:
        """Stop listening."""
        listeners, self._listeners = list(self._listeners.values()), {}
        await asyncio.gather(*(listener.close(1.0) for listener in listeners))
        for task in self._closing:
            task.cancel()
        await self._proxy.close()


def _name(service: Key, tag: str) -> str:
    return f"{service.path}#{tag}" if tag else service.path


async def _bind(server: web.Server, port: int) -> asyncio.Server | None:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            server, "127.0.0.1", port, family=socket.AF_INET, backlog=1024, reuse_address=True
        )
    except OSError:
        return None
