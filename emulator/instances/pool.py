"""The instances of all revisions: started when needed, stopped when idle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from emulator.instances import probes, together
from emulator.instances.launch import Launch, Probe
from emulator.instances.runtime import Image, Instance, Runtime
from emulator.instances.scaling import Pool
from emulator.instances.start_failures import StartFailed, image_not_found, internal_error
from emulator.logging.models import Logs, RevisionLog
from emulator.names import Key
from emulator.registry.images import ImageNotFound, WrongPlatform

# Cloud Run sends SIGKILL 10 seconds after SIGTERM.
# Source: https://cloud.google.com/run/docs/container-contract#instance-shutdown.
GRACE = 10.0
# Seconds until an instance stops that no URL reaches: short, but a rollback finds it warm.
_UNREACHABLE = 60.0
_LOOK_AGAIN = 0.05

_log = logging.getLogger("emulator.instances")


class Instances:
    """Every revision's pool.

    `find_image(reference)` looks an image up in the registry; `idle` is the number of seconds
    without a request after which an instance is stopped.
    """

    def __init__(
        self, runtime: Runtime, find_image: Callable[[str], Image], logs: Logs, idle: float
    ) -> None:
        self._runtime = runtime
        self._find_image = find_image
        self._logs = logs
        self._idle = idle
        self._pools: dict[Key, Pool] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._probing: set[asyncio.Task[None]] = set()
        self._reaper = asyncio.create_task(self._reap())

    def register(self, launch: Launch) -> Pool:
        """Return the pool of a revision; the first call creates it."""
        pool = self._pools.get(launch.revision)
        if pool is None:
            pool = self._pools[launch.revision] = Pool(launch, self._start)
        return pool

    def pool(self, revision: Key) -> Pool | None:
        """Return the pool of a revision; None for one that was never registered or was deleted."""
        return self._pools.get(revision)

    def forget(self, revision: Key) -> None:
        """Drop a deleted revision; its instances stop once they answered their requests."""
        pool = self._pools.pop(revision, None)
        if pool is not None:
            self._in_background(self._retire(pool))

    def _start(self, launch: Launch) -> asyncio.Task[Instance]:
        return asyncio.create_task(self._started(launch))

    async def _started(self, launch: Launch) -> Instance:
        images = {}
        for container in launch.containers:
            try:
                found = await asyncio.to_thread(self._find_image, container.image)
            except (ImageNotFound, WrongPlatform) as error:
                raise image_not_found(container.image) from error
            images[container.image] = found
        log = self._logs.of(launch.revision, launch.service)
        try:
            instance = await self._runtime.start(launch, images, log)
        except StartFailed:
            raise
        except Exception as error:
            _log.exception("Starting %s failed", launch.revision.path)
            raise internal_error() from error
        for container in launch.containers:
            if container.liveness is not None:
                probing = asyncio.create_task(
                    self._kept_alive(container, container.liveness, instance, log)
                )
                self._probing.add(probing)
                probing.add_done_callback(self._probing.discard)
        return instance

    async def _kept_alive(
        self, container: Launch, probe: Probe, instance: Instance, log: RevisionLog
    ) -> None:
        """Probe a container as long as it runs. If it fails, kill its instance, start another one.

        Source: https://cloud.google.com/run/docs/configuring/healthchecks#liveness-probes (SIGKILL,
        503 for its requests, and a new instance).
        """
        if await probes.fails(container, probe, together.member(instance, container)):
            log.system("ERROR", probes.liveness_failure(container, probe))
            await instance.stop(0.0)
            if (pool := self._pools.get(container.revision)) and pool.serving:
                with contextlib.suppress(StartFailed):  # the revision's log has the reason
                    await pool.warm()

    async def _retire(self, pool: Pool) -> None:
        # A request that came before the deletion may wait for an instance that starts.
        while pool.busy:
            await asyncio.sleep(_LOOK_AGAIN)
        await pool.abandon()
        await self._stop(pool.take_out())

    async def _stop(self, instances: list[Instance]) -> None:
        await asyncio.gather(*(instance.stop(GRACE) for instance in instances))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _reap(self) -> None:
        """Stop idle instances, and keep minimums running."""
        pause = max(0.05, min(1.0, self._idle / 4))
        while True:
            await asyncio.sleep(pause)
            for pool in list(self._pools.values()):
                idle = self._idle if pool.serving else min(self._idle, _UNREACHABLE)
                if bored := pool.idle(idle):
                    self._in_background(self._stop(bored))
                pool.keep_minimum()

    async def close(self) -> None:
        """Stop every instance at the same time."""
        self._reaper.cancel()
        for task in self._probing:
            task.cancel()
        pools, self._pools = list(self._pools.values()), {}
        await asyncio.gather(*(pool.abandon() for pool in pools))
        await self._stop([instance for pool in pools for instance in pool.take_out()])
        if self._stopping:
            await asyncio.wait(self._stopping)
        await self._runtime.close()
