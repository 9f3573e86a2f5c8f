"""Apps that listen on a port of their own choice instead of $PORT.

On Cloud Run such an app works if its port is the container's. Here, instances share this machine's
ports, so $PORT differs between them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable

from emulator.instances import sockets
from emulator.instances.launch import Launch
from emulator.instances.sockets import Listener
from emulator.ports import is_free

_LOOK_AGAIN = 0.2
# An app may open a second port before its own. It has made up its mind when it does nothing more
# for so many seconds: this many clock ticks of CPU time, or fewer.
_SETTLED, _IDLE_TICKS = 0.5, 2
# The system's choice for connections between processes of an app starts here, on Linux.
_EPHEMERAL = 32_768


class FixedPort(Exception):
    """An instance listens on its container's port, or cannot because the port is taken."""


def is_named(words: Iterable[str], port: int) -> bool:
    """Return whether a command names a port, as `--bind :8080` does, and `${PORT:-8080}` not."""
    return any(re.search(rf"(?<![\w.-]){port}(?![\w.])", word) for word in words)


def may_be_taken(launch: Launch, told: int) -> bool:
    """Return whether an instance that exited may have failed to listen on its container's port.

    `told` is the value of its variable PORT.
    """
    return told != launch.container_port and not is_free(launch.container_port)


async def elsewhere(pid: int, told: int, launch: Launch) -> Listener:
    """Wait until an instance listens on another port than $PORT, and is not about to change that.

    Args:
        pid: Its first process.
        told: The value of its variable PORT.
        launch: Its revision.
    """
    before, since = -1, 0.0
    while True:
        await asyncio.sleep(_LOOK_AGAIN)
        pids = await asyncio.to_thread(sockets.family, pid)
        found = await asyncio.to_thread(sockets.listening, pids)
        others = [one for one in found if one.port < _EPHEMERAL or not one.loopback]
        if any(one.port == told for one in found) or not others:
            before = -1
            continue
        for one in others:
            if one.port == launch.container_port:
                return one
        now = sockets.ticks(pids)
        if before < 0 or now - before > _IDLE_TICKS:
            before, since = now, time.monotonic()
        elif time.monotonic() - since >= _SETTLED:
            return min(others)


def elsewhere_text(found: Listener, told: int) -> str:
    """Return the line about an app that listens on another port."""
    only = " of 127.0.0.1 only" if found.loopback else ""
    return (
        f"It listens on {found.port}{only}; $PORT was {told}. "
        f"Make it listen on 0.0.0.0 at $PORT, or set containerPort: {found.port} in the manifest."
    )


def taken_text(port: int, no_network: str) -> str:
    """Return the line about an app whose fixed port is in use, where it has no network alone."""
    return (
        f"It exited, and port {port} of this machine is in use. If it listens on {port} whatever "
        f"$PORT says, only one instance can run: make it listen on $PORT. {no_network}"
    )
