"""Where the containers of one instance run in Docker: the first one's network, and volumes.

Source: https://docs.docker.com/engine/network/#container-networks (`container:NAME`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import aiohttp

from emulator.instances import probes
from emulator.instances.engine import EngineError
from emulator.instances.launch import Launch
from emulator.instances.runtime import Image, Images, Instance
from emulator.instances.start_failures import probe_failed
from emulator.logging.models import RevisionLog
from emulator.ports import Ports


class _Container(Instance, Protocol):
    container: str


class _Runtime(Protocol):
    async def run(
        self,
        container: Launch,
        image: Image,
        reference: str,
        port: int,
        ways: Mapping[int, int],
        log: RevisionLog,
        *,
        beside: str,
        volumes: Mapping[str, str],
    ) -> _Container: ...

    async def new_volume(self) -> str: ...

    async def remove_volume(self, name: str) -> None: ...


class DockerPlace:
    """The place of one instance, as `together.Place`.

    Args:
        runtime: Starts containers.
        launch: The revision.
        images: The images of its containers.
        references: The images as the engine names them.
        ports: Where free ports come from.
    """

    def __init__(
        self,
        runtime: _Runtime,
        launch: Launch,
        images: Images,
        references: Mapping[str, str],
        ports: Ports,
    ) -> None:
        self._runtime = runtime
        self._launch = launch
        self._images = images
        self._references = references
        self._ways = {port: ports.free() for port in sorted(probes.ports(launch))}
        self._volumes: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._first = ""

    async def start(self, container: Launch, log: RevisionLog) -> Instance:
        """Start a container, and do not wait until it listens; raises StartFailed."""
        async with self._turn:
            try:
                for mount in container.mounts:
                    if mount.volume not in self._volumes:
                        self._volumes[mount.volume] = await self._runtime.new_volume()
                started = await self._runtime.run(
                    container,
                    self._images[container.image],
                    self._references[container.image],
                    self._ways[self._launch.container_port],
                    self._ways,
                    log,
                    beside=self._first,
                    volumes=self._volumes,
                )
            except (EngineError, aiohttp.ClientError, OSError) as error:
                problem = f"The container cannot be started: {error}"
                log.system("ERROR", problem)
                raise probe_failed(container.container, problem) from error
            self._first = self._first or started.container
        return started

    async def passes(self, container: Launch, member: Instance) -> bool:
        """Wait until a container passes its startup probe; return whether it does."""
        return await probes.passes(container, member)

    async def close(self) -> None:
        """Remove the volumes."""
        for name in self._volumes.values():
            await self._runtime.remove_volume(name)
