"""The instances of a revision: as many as its requests need, within its bounds."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable

from emulator.instances.launch import Bounds, Launch
from emulator.instances.runtime import Instance
from emulator.instances.start_failures import StartFailed

# How long a request waits for room: 3.5 times the average start, or 10 seconds if that is more.
# Source: https://cloud.google.com/run/docs/about-instance-autoscaling (exceeding max instances).
_TIMES_AVERAGE, _PATIENCE = 3.5, 10.0
# Of one revision: on one machine, more starts would slow each other down.
_STARTS_AT_ONCE = 4

_log = logging.getLogger("emulator.instances")


class NoInstance(Exception):
    """No instance had room for a request in the time that it may wait."""


class Member:
    """An instance in its pool: it answers `in_flight` requests, and takes no more once `gone`."""

    __slots__ = ("gone", "in_flight", "instance", "last_used")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.in_flight = 0
        self.last_used = time.monotonic()
        self.gone = False


class Pool:
    """The instances of a revision, and the requests that wait for one.

    Attributes:
        serving: Whether a URL reaches the revision. If so, the minimum of `bounds` runs.
        bounds: The smallest and the largest number of instances.

    `start(launch)` starts an instance; the task may raise StartFailed.

    A request goes to the instance with the fewest requests. Another instance starts only when all
    are full. Cloud Run's autoscaler starts one at about 60 % of the concurrency, and considers CPU
    usage, too; a laptop is better off with few processes.
    """

    def __init__(self, launch: Launch, start: Callable[[Launch], asyncio.Task[Instance]]) -> None:
        self.launch = launch
        self.serving = False
        self.bounds = launch.bounds
        self._start = start
        self._members: list[Member] = []
        self._starting: set[asyncio.Task[Instance]] = set()
        self._watches: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[Member]] = deque()
        self._starts, self._seconds_starting = 0, 0.0

    def take(self) -> Member | None:
        """Return an instance with room for a request, unless others wait; `release` it later."""
        if self._waiting:
            return None
        best: Member | None = None
        limit = self.launch.concurrency
        for member in self._members:
            if member.in_flight < limit and not member.instance.exited.is_set():
                best, limit = member, member.in_flight
        if best is not None:
            best.in_flight += 1
        return best

    async def queue(self) -> Member:
        """Wait for an instance with room for a request, and start one if needed.

        Raises:
            NoInstance: The request waited too long.
            StartFailed: No instance started, and there is no other one to wait for.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Member] = loop.create_future()
        self._waiting.append(waiter)
        timer = loop.call_later(self._patience, _give_up, waiter)
        self._scale_out()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            raise
        finally:
            timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def release(self, member: Member) -> None:
        """End a request on an instance: its room goes to the request that waits longest."""
        member.last_used = time.monotonic()
        member.in_flight -= 1
        if self._waiting and not member.gone:
            self._fill(member)

    def drop(self, member: Member) -> None:
        """Send no more requests to an instance."""
        member.gone = True
        if member in self._members:
            self._members.remove(member)
        self._scale_out()

    async def warm(self) -> None:
        """Start an instance unless one runs; raises StartFailed.

        Callers at the same time share a start, and cannot cancel it.
        """
        if any(not member.instance.exited.is_set() for member in self._members):
            return
        await asyncio.shield(next(iter(self._starting), None) or self._start_one())

    def keep_minimum(self) -> None:
        """Start instances up to the minimum."""
        missing = self._minimum - len(self._members) - len(self._starting)
        for _ in range(self._startable(missing)):
            self._start_one().add_done_callback(self._complain)

    def idle(self, seconds: float) -> list[Instance]:
        """Take out and return instances without a request for `seconds`, down to the minimum."""
        long_ago = time.monotonic() - seconds
        # The newest first: the oldest instance is stopped last.
        bored = [m for m in self._members if m.in_flight == 0 and m.last_used <= long_ago][::-1]
        bored = bored[: max(0, len(self._members) - self._minimum)]
        for member in bored:
            member.gone = True
            self._members.remove(member)
        return [member.instance for member in bored]

    async def abandon(self) -> None:
        """Start no more instances; requests that wait while none runs get StartFailed."""
        self.bounds = Bounds(0, 0)
        for task in self._starting:
            task.cancel()
        if self._starting:
            await asyncio.wait(self._starting)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered or waits."""
        return bool(self._waiting) or any(
            m.in_flight and not m.instance.exited.is_set() for m in self._members
        )

    def take_out(self) -> list[Instance]:
        """Take out and return every instance, to stop it."""
        members, self._members = self._members, []
        for member in members:
            member.gone = True
        return [member.instance for member in members]

    @property
    def _minimum(self) -> int:
        return min(self.bounds) if self.serving else 0

    @property
    def _patience(self) -> float:
        if not self._starts:
            return max(_PATIENCE, self.launch.seconds_to_start)
        return max(_PATIENCE, _TIMES_AVERAGE * self._seconds_starting / self._starts)

    def _startable(self, wanted: int) -> int:
        """Return how many of the `wanted` instances may start now."""
        under_way = len(self._starting)
        room = self.bounds.maximum - len(self._members) - under_way
        return max(0, min(wanted, room, _STARTS_AT_ONCE - under_way))

    def _scale_out(self) -> None:
        """Start as many instances as the waiting requests fill."""
        wanted = math.ceil(len(self._waiting) / self.launch.concurrency)
        for _ in range(self._startable(wanted - len(self._starting))):
            self._start_one()

    def _start_one(self) -> asyncio.Task[Instance]:
        began = time.monotonic()
        task = self._start(self.launch)
        self._starting.add(task)
        task.add_done_callback(lambda done: self._started(done, began))
        return task

    def _started(self, task: asyncio.Task[Instance], began: float) -> None:
        self._starting.discard(task)
        failure = StartFailed("Cancelled", "") if task.cancelled() else task.exception()
        if failure is not None:
            if not self._members and not self._starting:
                for waiter in self._waiting:
                    if not waiter.done():
                        waiter.set_exception(failure)
            return
        self._starts += 1
        self._seconds_starting += time.monotonic() - began
        member = Member(task.result())
        self._members.append(member)
        watch = asyncio.create_task(self._watch(member))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        self._fill(member)
        self._scale_out()

    async def _watch(self, member: Member) -> None:
        """Replace an instance that exited, if a request waits."""
        await member.instance.exited.wait()
        if not member.gone:
            self.drop(member)

    def _fill(self, member: Member) -> None:
        """Give the room of an instance to the requests that wait longest."""
        free = not member.instance.exited.is_set()
        while free and self._waiting and member.in_flight < self.launch.concurrency:
            waiter = self._waiting.popleft()
            if not waiter.done():
                member.in_flight += 1
                waiter.set_result(member)

    def _complain(self, task: asyncio.Task[Instance]) -> None:
        if not task.cancelled() and (failure := task.exception()):
            _log.warning("%s: %s", self.launch.revision.name, failure)


def _give_up(waiter: asyncio.Future[Member]) -> None:
    if not waiter.done():
        waiter.set_exception(NoInstance())
