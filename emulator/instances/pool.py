"""The instances of all revisions: started when needed, kept while used, stopped when idle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from emulator.instances.launch import Launch, StartFailed
from emulator.instances.runtime import Image, Instance, Runtime
from emulator.logging.models import Logs
from emulator.names import Key
from emulator.registry import ImageNotFound, WrongPlatform

# Cloud Run sends SIGKILL 10 seconds after SIGTERM.
# Source: https://cloud.google.com/run/docs/container-contract#instance-shutdown.
GRACE = 10.0
# Seconds until an instance goes that no URL leads to any more: soon, but a rollback finds it warm.
_UNREACHABLE = 60.0

_log = logging.getLogger("emulator.instances")


class Pool:
    """The instances of one revision: none or one, for now."""

    def __init__(self, launch: Launch, start: Callable[[Launch], asyncio.Task[Instance]]) -> None:
        self.launch = launch
        self.serving = False
        self.last_used = time.monotonic()
        self._start = start
        self._starting: asyncio.Task[Instance] | None = None
        self.instance: Instance | None = None

    def ready(self) -> Instance | None:
        """The running instance that takes requests, if there is one."""
        if self.instance is not None and self.instance.exited.is_set():
            self.instance = None
        return self.instance

    async def get(self) -> Instance:
        """An instance that takes requests, started if need be; raises StartFailed.

        Everybody who waits for the same start shares it, and none of them can cancel it.
        """
        instance = self.ready()
        if instance is not None:
            return instance
        if self._starting is None:
            self._starting = self._start(self.launch)
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    def _started(self, task: asyncio.Task[Instance]) -> None:
        self._starting = None
        self.last_used = time.monotonic()
        if not task.cancelled() and task.exception() is None:
            self.instance = task.result()

    def take(self) -> Instance | None:
        """Give the instance up, so that it can be stopped; the next request starts another."""
        instance, self.instance = self.instance, None
        return instance

    async def abandon(self) -> None:
        """Stop starting."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or an instance is on its way."""
        return self._starting is not None or (
            self.instance is not None and self.instance.in_flight > 0
        )

    def is_idle(self, seconds: float) -> bool:
        """Whether the instance may be stopped, having had nothing to do for `seconds`."""
        if self.ready() is None or self.busy:
            return False
        if self.serving and self.launch.min_instances > 0:
            return False
        return time.monotonic() - self.last_used >= seconds

    def is_missing(self) -> bool:
        """Whether an instance has to be started although nobody asks for one."""
        wanted = self.serving and self.launch.min_instances > 0
        return wanted and self.ready() is None and not self.busy


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
        self._reaper = asyncio.create_task(self._reap())

    def register(self, launch: Launch) -> Pool:
        """The pool of a revision, made on first mention."""
        pool = self._pools.get(launch.revision)
        if pool is None:
            pool = self._pools[launch.revision] = Pool(launch, self._start)
        return pool

    def pool(self, revision: Key) -> Pool | None:
        """The pool of a revision; None for one that was never registered or is gone."""
        return self._pools.get(revision)

    def forget(self, revision: Key) -> None:
        """Drop a deleted revision; its instance stops once its requests are answered."""
        pool = self._pools.pop(revision, None)
        if pool is not None:
            self._in_background(self._retire(pool))

    def _start(self, launch: Launch) -> asyncio.Task[Instance]:
        return asyncio.create_task(self._started(launch))

    async def _started(self, launch: Launch) -> Instance:
        try:
            image = await asyncio.to_thread(self._find_image, launch.image)
        except (ImageNotFound, WrongPlatform) as error:
            raise StartFailed("ContainerMissing", f"Image '{launch.image}' not found.") from error
        log = self._logs.of(launch.revision, launch.service)
        return await self._runtime.start(launch, image, log)

    async def _retire(self, pool: Pool) -> None:
        await pool.abandon()
        instance = pool.take()
        if instance is None:
            return
        while instance.in_flight and not instance.exited.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(instance.exited.wait(), 0.05)
        await instance.stop(GRACE)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _reap(self) -> None:
        """Scale to zero, and keep what has a minimum running."""
        pause = max(0.05, min(1.0, self._idle / 4))
        while True:
            await asyncio.sleep(pause)
            for pool in list(self._pools.values()):
                idle = self._idle if pool.serving else min(self._idle, _UNREACHABLE)
                if pool.is_idle(idle):
                    instance = pool.take()
                    assert instance is not None
                    self._in_background(instance.stop(GRACE))
                elif pool.is_missing():
                    self._in_background(self._keep(pool))

    async def _keep(self, pool: Pool) -> None:
        try:
            await pool.get()
        except StartFailed as failure:
            _log.warning("%s: %s", pool.launch.revision.name, failure.message)

    async def close(self) -> None:
        """Stop every instance at once, with what grace a shutdown can afford."""
        self._reaper.cancel()
        pools, self._pools = list(self._pools.values()), {}
        await asyncio.gather(*(pool.abandon() for pool in pools))
        running = [instance for pool in pools if (instance := pool.take()) is not None]
        await asyncio.gather(*(instance.stop(GRACE) for instance in running))
        if self._stopping:
            await asyncio.wait(self._stopping)
        await self._runtime.close()
