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
from collections.abc import Iterable, Mapping

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
        _kill(self._process)
        await self._process.wait()


class SharedNetwork:
    """A network that the containers of one instance share; created by `open`.

    A process that does nothing holds it open, as a pod's does in Kubernetes.

    Attributes:
        pid: A process in it.
    """

    def __init__(
        self, holder: asyncio.subprocess.Process, pid: int, connection: Connection
    ) -> None:
        self.pid = pid
        self._holder = holder
        self._connection = connection

    @classmethod
    async def open(
        cls, ways: Mapping[int, int], reachable: Iterable[range], renamed: dict[int, int]
    ) -> SharedNetwork:
        """Make a network and connect it, as `connect` does; raises NoNetwork."""
        holder = await asyncio.create_subprocess_exec(
            "bwrap", "--unshare-user", "--unshare-net", "--die-with-parent", "--new-session",
            "--ro-bind", "/", "/", "sleep", "infinity",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        ended = asyncio.Event()
        try:
            pid = await first_inside(holder.pid, ended)
            connection = await connect(pid, ways, reachable, renamed)
        except BaseException:
            _kill(holder)
            await asyncio.shield(holder.wait())
            raise
        return cls(holder, pid, connection)

    @property
    def enter(self) -> list[str]:
        """The words before a command that is to run in it."""
        return [
            *("nsenter", "--target", str(self.pid), "--user", "--net"),
            *("--preserve-credentials", "--"),
        ]

    async def close(self) -> None:
        """End it, after every container has ended."""
        await self._connection.close()
        _kill(self._holder)
        await self._holder.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def first_inside(pid: int, exited: asyncio.Event) -> int:
    """Return the first process in the sandbox that `pid` makes; raises NoNetwork if none begins."""
    deadline = time.monotonic() + _PATIENCE
    while not exited.is_set() and time.monotonic() < deadline:
        if first := sockets.first_child(pid):
            return first
        await asyncio.sleep(_LOOK_AGAIN)
    raise NoNetwork("its sandbox does not start")


async def listened(pid: int, port: int, exited: asyncio.Event, seconds: float) -> bool:
    """Wait until something listens on a port in the network of a process.

    The way into the network takes connections before that.

    Returns:
        Whether it does: False if `exited` is set before, or after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while port not in {one.port for one in sockets.in_network(pid)}:
        if exited.is_set() or time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_AGAIN)
    return True


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
    pid: int, ways: Mapping[int, int], reachable: Iterable[range], renamed: dict[int, int]
) -> Connection:
    """Connect the network of a process with this machine's.

    Args:
        pid: The process, which is in a network namespace of its own.
        ways: Ports of 127.0.0.1 that lead to the instance -> the ports that it listens on.
        reachable: Ports of this machine's 127.0.0.1 that are the same ports inside.
        renamed: Ports inside that lead to another port of 127.0.0.1.

    Returns:
        The connection, which must be closed with the instance.

    Raises:
        NoNetwork: It does not work.
    """
    ranges = [f"{ports.start}-{ports[-1]}" for ports in reachable]
    to_us = ",".join([*ranges, *(f"{here}:{there}" for here, there in renamed.items())])
    inward = "127.0.0.1/" + ",".join(f"{port}:{inside}" for port, inside in ways.items())
    words = ["--foreground", "--quiet", "--config-net", "--udp-ports", "none", "--udp-ns", "none"]
    words += ["--tcp-ports", inward, "--tcp-ns", to_us]
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
            _kill(process)
            assert process.stderr is not None
            said = (await process.stderr.read()).decode("utf-8", "replace").strip().splitlines()
            raise NoNetwork(said[-1] if said else "it does not start")
        await asyncio.sleep(_LOOK_AGAIN)
    return Connection(process)
