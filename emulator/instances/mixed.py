"""Runs each image as it has to be run: as processes of this machine, or in a Docker engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from emulator.instances.docker import DockerRuntime
from emulator.instances.engine import NoEngine
from emulator.instances.launch import Launch
from emulator.instances.process import ProcessRuntime
from emulator.instances.runtime import Image, Images, Instance
from emulator.instances.start_failures import StartFailed, mixed, no_engine
from emulator.logging.models import RevisionLog
from emulator.packed import is_packed


class MixedRuntime:
    """Runs packed images as processes, and others in Docker.

    Args:
        processes: Runs packed images.
        open_docker: Connects to a Docker engine; raises NoEngine. It is called when an image needs
            one, so that a machine without Docker pays nothing for it.
        used: A file that exists once a Docker engine was used: then, containers may be left from
            an emulator that was killed.
        prefer_processes: Whether images of other builders run as processes, too, unless they have
            an operating system of their own.
    """

    def __init__(
        self,
        processes: ProcessRuntime,
        open_docker: Callable[[], Awaitable[DockerRuntime]],
        used: Path,
        *,
        prefer_processes: bool,
    ) -> None:
        self._processes = processes
        self._open_docker = open_docker
        self._used = used
        self._prefer_processes = prefer_processes
        self._docker: DockerRuntime | None = None
        self._opening = asyncio.Lock()
        machine = {p.replace("darwin/", "linux/") for p in processes.platforms}
        self.platforms: Collection[str] = frozenset({*processes.platforms, *machine})
        self._cleaning: asyncio.Task[None] | None = None
        if used.exists():
            self._cleaning = asyncio.create_task(self._clean())

    async def start(self, launch: Launch, images: Images, log: RevisionLog) -> Instance:
        """Start an instance and wait until it takes requests; raises StartFailed."""
        kinds = {
            one.container: await self._as_processes(one, images[one.image])
            for one in launch.containers
        }
        if all(kinds.values()):
            return await self._processes.start(launch, images, log)
        foreign = [one for one in launch.containers if not kinds[one.container]]
        try:
            if len(foreign) < len(launch.containers):
                packed = next(name for name, runs in kinds.items() if runs)
                raise mixed(packed, foreign[0].container)
            try:
                docker = await self.docker()
            except NoEngine as error:
                raise no_engine(foreign[0].image, error) from error
        except StartFailed as failure:
            log.system("ERROR", failure.message)
            raise
        return await docker.start(launch, images, log)

    async def _as_processes(self, container: Launch, image: Image) -> bool:
        """Return whether a container runs as processes; raises StartFailed."""
        return is_packed(image.config) or (
            self._prefer_processes and not await self._processes.has_system(container, image)
        )

    async def docker(self) -> DockerRuntime:
        """Return the connection to the Docker engine; raises NoEngine."""
        async with self._opening:
            if self._docker is None:
                self._docker = await self._open_docker()
                self._used.touch()
            return self._docker

    async def _clean(self) -> None:
        """Connect to the engine, which removes the containers that an earlier emulator left."""
        try:
            await self.docker()
        except NoEngine:
            return

    async def close(self) -> None:
        """Release what the runtimes hold, after every instance was stopped."""
        if self._cleaning is not None:
            await asyncio.wait([self._cleaning])
        await self._processes.close()
        if self._docker is not None:
            await self._docker.close()
