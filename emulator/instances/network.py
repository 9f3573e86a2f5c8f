"""A network of its own for an instance that listens on a fixed port, made by pasta. Linux only.

In it, every instance can listen on the same port, and no other machine reaches the instance. Its
calls to the outside work, and so do those to the local Cloud Run and its services.

Source: https://passt.top/passt/about/#pasta-pack-a-subtle-tap-abstraction, passt(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Iterable

from emulator.instances import sockets

_PATIENCE = 5.0  # seconds
_LOOK_AGAIN = 0.005


class NoNetwork(Exception):
    """pasta cannot connect an instance; the text says why."""


class Connection:
    """The process that connects an instance's network."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def missing(no_sandbox: str) -> str:
    """Return why instances have no networks of their own; "" if they can have them.

    `no_sandbox` is why they have no sandbox, which a network of their own needs; "" if they have.
    """
    if no_sandbox:
        return f"To give each instance a network of its own, a sandbox is missing: {no_sandbox}"
    if not shutil.which("pasta"):
        return "To give each instance a network of its own: apt-get install passt."
    return ""


async def connect(
    pid: int, port: int, inside: int, reachable: Iterable[range], renamed: dict[int, int]
) -> Connection:
    """Connect the network of a process with this machine's.

    Args:
        pid: The process, which is in a network namespace of its own.
        port: The port of 127.0.0.1 that leads to the instance.
        inside: The port that the instance listens on.
        reachable: Ports of this machine's 127.0.0.1 that are the same ports inside.
        renamed: Ports inside that lead to another port of 127.0.0.1.

    Returns:
        The connection, which must be closed with the instance.

    Raises:
        NoNetwork: It does not work.
    """
    ranges = [f"{ports.start}-{ports[-1]}" for ports in reachable]
    to_us = ",".join([*ranges, *(f"{here}:{there}" for here, there in renamed.items())])
    words = ["--foreground", "--quiet", "--config-net", "--udp-ports", "none", "--udp-ns", "none"]
    words += ["--tcp-ports", f"127.0.0.1/{port}:{inside}", "--tcp-ns", to_us]
    if os.getuid() == 0:
        # Else it becomes "nobody", who may not join the namespaces.
        words += ["--runas", "0:0"]
    end_with_us = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    process = await asyncio.create_subprocess_exec(
        *end_with_us, "pasta", *words, str(pid),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + _PATIENCE
    while not sockets.has_route(pid):
        if process.returncode is not None or time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            assert process.stderr is not None
            said = (await process.stderr.read()).decode("utf-8", "replace").strip().splitlines()
            raise NoNetwork(said[-1] if said else "it does not start")
        await asyncio.sleep(_LOOK_AGAIN)
    return Connection(process)
