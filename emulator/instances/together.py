"""An instance of several containers: they start in order, and end together.

Source: https://cloud.google.com/run/docs/deploying#sidecars (each container of the order must pass
its startup probe before the next one starts; all share a network and volumes in memory) and
https://cloud.google.com/run/docs/container-contract#instance-shutdown (SIGTERM to all containers).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from emulator.instances import probes
from emulator.instances.launch import Launch
from emulator.instances.runtime import Instance
from emulator.instances.start_failures import StartFailed, never_listened, probe_failed
from emulator.logging.models import RevisionLog

# Seconds for the other containers to end after one has: they get SIGTERM, then SIGKILL.
_GRACE = 10.0


class Place(Protocol):
    """Where the containers of one instance run: they share its network and volumes."""

    async def start(self, container: Launch, log: RevisionLog) -> Instance:
        """Start a container, and do not wait until it listens; raises StartFailed."""

    async def passes(self, container: Launch, member: Instance) -> bool:
        """Wait until a container passes its startup probe; return whether it does."""

    async def close(self) -> None:
        """Release the network and the volumes, after every container has ended."""


class Together:
    """A running instance of several containers.

    Attributes:
        members: Its containers by name.
    """

    def __init__(
        self, launch: Launch, members: Mapping[str, Instance], place: Place, log: RevisionLog
    ) -> None:
        ingress = members[launch.container]
        self.members = members
        self.port, self.ways, self.forwarded = ingress.port, ingress.ways, ingress.forwarded
        self.url = ingress.url
        self.exited = asyncio.Event()
        self._place = place
        self._log = log
        self._stopping = False
        self._watch = asyncio.create_task(self._watched())

    async def _watched(self) -> None:
        """Wait until a container ends; then end the others, and release the place."""
        name = await _first_exit(self.members)
        self.exited.set()
        if not self._stopping:
            self._log.system("WARNING", f'Container "{name}" has ended, so the instance ends.')
            await _stop(self.members.values(), _GRACE)
        await asyncio.gather(*(one.exited.wait() for one in self.members.values()))
        await self._place.close()

    async def stop(self, grace: float) -> None:
        """End all containers at once: SIGTERM, and SIGKILL after `grace` seconds."""
        self._stopping = True
        await _stop(self.members.values(), grace)
        await asyncio.shield(self._watch)


async def start(launch: Launch, place: Place, log: RevisionLog) -> Together:
    """Start the containers of an instance, each after those that it depends on.

    Raises:
        StartFailed: One of them does not start. The others have ended then.
    """
    members: dict[str, Instance] = {}
    starting: dict[str, asyncio.Task[None]] = {}
    gone: asyncio.Future[Launch] = asyncio.get_running_loop().create_future()
    either: set[asyncio.Future[Any]] = {gone}
    watches = []

    async def watch(container: Launch) -> None:
        await members[container.container].exited.wait()
        if not gone.done():
            gone.set_result(container)

    async def begin(container: Launch) -> None:
        for name in container.depends_on:
            await asyncio.shield(starting[name])
        named = log.of(container.container)
        member = members[container.container] = await place.start(container, named)
        if not await _passes(container, member, place, named):
            raise _failure(container)
        watches.append(asyncio.create_task(watch(container)))

    for container in launch.containers:
        starting[container.container] = asyncio.create_task(begin(container))
    everything = asyncio.gather(*starting.values())
    either.add(everything)
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise _failure(gone.result())
        everything.result()
    except BaseException:
        everything.cancel()
        for task in starting.values():
            task.cancel()
        await asyncio.shield(_end(starting.values(), members, place))
        raise
    finally:
        for each in watches:
            each.cancel()
        gone.cancel()
    return Together(launch, members, place, log)


def member(instance: Instance, container: Launch) -> Instance:
    """Return one container of an instance: the instance itself, if it has only one."""
    return instance.members[container.container] if isinstance(instance, Together) else instance


async def _passes(container: Launch, member: Instance, place: Place, log: RevisionLog) -> bool:
    """Wait for a container's startup probe, and log how it went."""
    began = time.monotonic()
    passed = await place.passes(container, member)
    probes.log_outcome(container, began, log, passed=passed)
    return passed


def _failure(container: Launch) -> StartFailed:
    if container.probe and container.probe.is_default:
        return never_listened(container.container_port)
    return probe_failed(container.container)


async def _end(
    starting: Iterable[asyncio.Task[None]], members: Mapping[str, Instance], place: Place
) -> None:
    await asyncio.gather(*starting, return_exceptions=True)
    await _stop(members.values(), 1.0)
    await place.close()


async def _first_exit(members: Mapping[str, Instance]) -> str:
    """Wait until one of the containers ends; return its name."""
    waiting = {asyncio.create_task(one.exited.wait()): name for name, one in members.items()}
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    return waiting[done.pop()]


async def _stop(members: Iterable[Instance], grace: float) -> None:
    await asyncio.gather(*(one.stop(grace) for one in members if not one.exited.is_set()))
