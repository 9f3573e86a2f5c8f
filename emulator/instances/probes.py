"""Startup probes, after which an instance takes requests, and liveness probes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Self

import aiohttp

from emulator.instances.launch import Launch, Probe
from emulator.instances.runtime import Instance
from emulator.logging.models import RevisionLog

# Cloud Run probes once a period. Here the period only limits how long an instance may take: more
# frequent probes cost nothing, and instances start sooner.
_EAGER, _PATIENT, _EAGER_FOR = 0.025, 0.25, 10.0

# If a connection is still open after this many seconds, a process listens.
_STAYS_OPEN = 0.25


def ports(launch: Launch) -> set[int]:
    """Return the ports of an instance that are connected to: its own, and those that are probed."""
    both = [probe for one in launch.containers for probe in (one.probe, one.liveness)]
    return {launch.container_port, *(probe.port for probe in both if probe is not None)}


async def passes(launch: Launch, instance: Instance) -> bool:
    """Wait until an instance answers its startup probe.

    Returns:
        Whether it does: False if it exited, or if the probe's time is over. One without a probe
        has started when its process runs.
    """
    probe, exited = launch.probe, instance.exited
    if probe is None:
        return not exited.is_set()
    began = time.monotonic()
    async with _Prober(launch, probe, instance) as prober:
        while not exited.is_set():
            elapsed = time.monotonic() - began
            left = probe.budget - elapsed
            if left <= 0:
                return False
            if await prober.succeeds(min(probe.timeout, left)):
                return not exited.is_set()
            await _exits(exited, _EAGER if elapsed < _EAGER_FOR else _PATIENT)
    return False


async def starts(
    launch: Launch, instance: Instance, passing: Awaitable[bool], began: float, log: RevisionLog
) -> bool:
    """Wait for an instance's startup probe, log how it ended, and stop one that does not pass.

    Args:
        launch: what was started.
        instance: the instance.
        passing: whether it passes.
        began: when its start began, by the monotonic clock.
        log: the log of its revision.
    """
    passed = False
    try:
        passed = await passing
    finally:
        if not passed:
            await asyncio.shield(instance.stop(grace=1.0))
    log_outcome(launch, began, log, passed=passed)
    return passed


async def fails(launch: Launch, probe: Probe, instance: Instance) -> bool:
    """Wait until an instance fails its liveness probe, as often in a row as its threshold.

    Returns:
        Whether it does: False if it exited.
    """
    failed = 0
    pause: float = probe.initial_delay
    async with _Prober(launch, probe, instance) as prober:
        while not await _exits(instance.exited, pause):
            began = time.monotonic()
            failed = 0 if await prober.succeeds(probe.timeout) else failed + 1
            if failed >= probe.threshold:
                return not instance.exited.is_set()
            pause = max(0.0, probe.period - (time.monotonic() - began))
    return False


async def _exits(exited: asyncio.Event, seconds: float) -> bool:
    """Wait so many seconds, or until the instance exits; returns whether it does."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(exited.wait(), seconds)
    return exited.is_set()


class _Prober:
    """Sends the requests of a probe to an instance; a context manager."""

    def __init__(self, launch: Launch, probe: Probe, instance: Instance) -> None:
        self._probe = probe
        own = probe.port == launch.container_port
        self._port = instance.port if own else instance.ways.get(probe.port, probe.port)
        self._forwarded = instance.forwarded and (own or probe.port in instance.ways)

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def succeeds(self, timeout: float) -> bool:
        """Return whether the instance answers within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await (self._get() if self._probe.kind == "HTTP" else self._connect())
        except (OSError, TimeoutError, aiohttp.ClientError):
            return False

    async def _get(self) -> bool:
        url = f"http://127.0.0.1:{self._port}/{self._probe.path.lstrip('/')}"
        headers = list(self._probe.headers)
        async with self._http.get(url, headers=headers, allow_redirects=False) as response:
            return 200 <= response.status < 400

    async def _connect(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            if self._forwarded:
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(reader.read(1), _STAYS_OPEN) != b""
            return True
        finally:
            writer.close()


def log_outcome(launch: Launch, began: float, log: RevisionLog, *, passed: bool) -> None:
    """Log what Cloud Run does about a startup probe that passed or failed; nothing without one."""
    if launch.probe is not None:
        text = _outcome(launch, launch.probe, time.monotonic() - began, passed=passed)
        log.system("INFO" if passed else "ERROR", text)


def _outcome(launch: Launch, probe: Probe, seconds: float, *, passed: bool) -> str:
    name = f"{'Default ' if probe.is_default else ''}STARTUP {probe.kind} probe"
    attempts = min(probe.threshold, 1 + int(seconds // probe.period))
    where = _where(launch, probe)
    if passed:
        return f"{name} succeeded after {attempts} attempt{'s'[: attempts > 1]} {where}."
    return f"{name} failed {_times(probe)} consecutively {where}. The instance was not started."


def liveness_failure(launch: Launch, probe: Probe) -> str:
    """Return what Cloud Run logs about a liveness probe that failed."""
    return (
        f"LIVENESS {probe.kind} probe failed {_times(probe)} consecutively "
        f"{_where(launch, probe)}. The instance has been shut down."
    )


def _times(probe: Probe) -> str:
    return f"{probe.threshold} time{'s'[: probe.threshold > 1]}"


def _where(launch: Launch, probe: Probe) -> str:
    path = f' path "{probe.path}"' if probe.kind == "HTTP" else ""
    return f'for container "{launch.container or "app-1"}" on port {probe.port}{path}'
