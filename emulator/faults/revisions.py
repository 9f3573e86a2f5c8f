"""Faults of revisions: slow to start, never ready, or ready and then gone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from fnmatch import fnmatchcase

from emulator.faults.models import Faults
from emulator.faults.settings import RevisionFault
from emulator.instances.launch import Launch
from emulator.instances.runtime import Images, Instance, Runtime
from emulator.instances.start_failures import never_listened
from emulator.logging.models import RevisionLog

_LOOK_AGAIN = 0.05


class WithFaults:
    """A runtime whose instances start and end as the active faults say."""

    def __init__(self, runtime: Runtime, faults: Faults) -> None:
        self._runtime = runtime
        self._faults = faults
        self._crashed: set[str] = set()
        self._crashes: set[asyncio.Task[None]] = set()

    @property
    def platforms(self) -> Collection[str]:
        """The platforms of the wrapped runtime."""
        return self._runtime.platforms

    async def start(self, launch: Launch, images: Images, log: RevisionLog) -> Instance:
        """Start an instance; raise StartFailed, also for one that a fault keeps from starting."""
        name = launch.revision.name
        if slow := self._striking("revision-slow", name):
            await asyncio.sleep(slow.seconds)
        while self._striking("revision-never-ready", name):
            await asyncio.sleep(_LOOK_AGAIN)
        crash = self._striking("revision-crashes", name)
        if crash is None:
            self._crashed.discard(name)
        elif name in self._crashed:
            raise never_listened(launch.container_port)
        instance = await self._runtime.start(launch, images, log)
        if crash is not None:
            task = asyncio.create_task(self._crash(name, instance, crash.seconds))
            self._crashes.add(task)
            task.add_done_callback(self._crashes.discard)
        return instance

    async def _crash(self, name: str, instance: Instance, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._crashed.add(name)
        await instance.stop(0.0)

    def _striking(self, fault: str, revision: str) -> RevisionFault | None:
        found = self._faults.active(fault)
        strikes = isinstance(found, RevisionFault) and fnmatchcase(revision, found.revision)
        return found if isinstance(found, RevisionFault) and strikes else None

    async def close(self) -> None:
        """Close the wrapped runtime."""
        for task in self._crashes:
            task.cancel()
        await self._runtime.close()
