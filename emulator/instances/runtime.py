"""The common parts of the process runtime and the docker runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from emulator.instances.launch import Launch
from emulator.instances.start_failures import never_listened
from emulator.logging.models import RevisionLog
from emulator.ports import Ports, is_free

_ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
_TRIES = 3
_Started = TypeVar("_Started")


class Image(Protocol):
    """An image of the registry, as far as a runtime reads it."""

    @property
    def digest(self) -> str:
        """`sha256:…` of the image's manifest."""

    @property
    def config(self) -> dict[str, Any]:
        """The OCI image configuration."""

    @property
    def layers(self) -> list[Path]:
        """The layers, lowest first: tar files, plain or compressed with gzip."""

    @property
    def platform(self) -> str:
        """`os/architecture`, with `/variant` if the image has one."""


class Instance(Protocol):
    """A running instance.

    Attributes:
        port: The port of 127.0.0.1 that it listens on, once its startup probe passed.
        ways: Other ports that it listens on -> the port of 127.0.0.1 that leads there. One that is
            missing is the same port of 127.0.0.1.
        forwarded: Whether another process listens there for it. That one accepts connections before
            the instance does, and closes those that it cannot forward.
        exited: Set when the instance has ended.
    """

    port: int
    ways: Mapping[int, int]
    forwarded: bool
    exited: asyncio.Event

    @property
    def url(self) -> str:
        """The URL that it answers at: `http://127.0.0.1:PORT`."""

    async def stop(self, grace: float) -> None:
        """Stop it: SIGTERM, and SIGKILL if it still runs after `grace` seconds."""


Images = Mapping[str, Image]
"""The images of a revision's containers, by their references."""


class Runtime(Protocol):
    """Starts instances."""

    @property
    def platforms(self) -> Collection[str]:
        """The platforms of images that it runs, as `os/architecture`."""

    async def start(self, launch: Launch, images: Images, log: RevisionLog) -> Instance:
        """Start an instance and wait until it takes requests; raises StartFailed."""

    async def close(self) -> None:
        """Release what the runtime holds, after every instance was stopped."""


def architecture(machine: str) -> str:
    """Return an OCI image's name for the architecture of a machine, as the kernel names it."""
    return _ARCHITECTURES.get(machine, machine)


async def on_a_port(
    ports: Ports, start: Callable[[int], Awaitable[_Started | None]], configured: int
) -> _Started:
    """Start an instance on a free port.

    Args:
        ports: Where free ports come from.
        start: Starts the instance on a port; returns None if it does not listen there.
        configured: The container's port, for the failure.

    Raises:
        StartFailed: It never listens.
    """
    for _ in range(_TRIES):
        port = ports.free()
        instance = await start(port)
        if instance is not None:
            return instance
        if is_free(port):
            break
        # Another process took the port before the instance could: the next port is tried.
    raise never_listened(configured)
