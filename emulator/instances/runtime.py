"""What runs instances: the doors that the process runtime and the docker runtime have."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from emulator.instances.launch import Launch
from emulator.logging.models import RevisionLog


class Image(Protocol):
    """An image of the registry: what a runtime reads of it."""

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
        """What it is for: `os/architecture`, with `/variant` where the image says one."""


class Instance(Protocol):
    """A running instance. It listens on 127.0.0.1, port `port`, once its startup probe passed.

    `forwarded`: something else listens there in its place, and accepts connections before the
    instance does; those that it cannot pass on, it closes.
    """

    port: int
    forwarded: bool
    exited: asyncio.Event

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`."""

    async def stop(self, grace: float) -> None:
        """End it: SIGTERM, and SIGKILL when it is still there after `grace` seconds."""


class Runtime(Protocol):
    """Starts instances."""

    @property
    def platforms(self) -> Collection[str]:
        """The platforms whose images it runs, as `os/architecture`."""

    async def start(self, launch: Launch, image: Image, log: RevisionLog) -> Instance:
        """Start an instance and wait until it takes requests; raises StartFailed."""

    async def close(self) -> None:
        """Let go of what the runtime holds, when every instance has been stopped."""
