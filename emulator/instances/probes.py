"""Probes: an instance takes requests once one succeeds, and is killed when others fail."""

from __future__ import annotations

import asyncio
import contextlib
import time

import aiohttp

from emulator.instances.launch import Launch, Probe
from emulator.instances.runtime import Instance

# Cloud Run asks once a period. Here the period only sets how long an instance may take: asking more
# often costs nothing and starts it sooner.
_EAGER, _PATIENT, _EAGER_FOR = 0.025, 0.25, 10.0


async def passes(launch: Launch, port: int, exited: asyncio.Event) -> bool:
    """Wait until the instance on `port` answers its startup probe.

    False when it exited first, or when the probe's budget is spent.
    """
    probe = launch.probe
    began = time.monotonic()
    target = _target(launch, probe, port)
    async with aiohttp.ClientSession() as session:
        while not exited.is_set():
            elapsed = time.monotonic() - began
            left = probe.budget - elapsed
            if left <= 0:
                return False
            if await _succeeds(session, probe, target, min(probe.timeout, left)):
                return not exited.is_set()
            await _exits(exited, _EAGER if elapsed < _EAGER_FOR else _PATIENT)
    return False


async def fails(launch: Launch, probe: Probe, instance: Instance) -> bool:
    """Wait until `instance` fails its liveness probe as often in a row as its threshold says.

    False when it exited first.
    """
    target = _target(launch, probe, instance.port)
    failed = 0
    pause: float = probe.initial_delay
    async with aiohttp.ClientSession() as session:
        while not await _exits(instance.exited, pause):
            began = time.monotonic()
            failed = 0 if await _succeeds(session, probe, target, probe.timeout) else failed + 1
            if failed >= probe.threshold:
                return not instance.exited.is_set()
            pause = max(0.0, probe.period - (time.monotonic() - began))
    return False


async def _exits(exited: asyncio.Event, seconds: float) -> bool:
    """Wait for that many seconds, or until the instance exits; whether it does."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(exited.wait(), seconds)
    return exited.is_set()


def _target(launch: Launch, probe: Probe, port: int) -> int:
    """A probe of another port than the container's goes there as it is."""
    return port if probe.port == launch.container_port else probe.port


async def _succeeds(
    session: aiohttp.ClientSession, probe: Probe, port: int, timeout: float
) -> bool:
    try:
        async with asyncio.timeout(timeout):
            if probe.kind == "HTTP":
                url = f"http://127.0.0.1:{port}/{probe.path.lstrip('/')}"
                headers = list(probe.headers)
                async with session.get(url, headers=headers, allow_redirects=False) as response:
                    return 200 <= response.status < 400
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
    except (OSError, TimeoutError, aiohttp.ClientError):
        return False


def outcome(launch: Launch, seconds: float, *, passed: bool) -> str:
    """What Cloud Run logs about a startup probe that passed or failed after `seconds`."""
    probe = launch.probe
    name = f"{'Default ' if probe.is_default else ''}STARTUP {probe.kind} probe"
    attempts = min(probe.threshold, 1 + int(seconds // probe.period))
    where = _where(launch, probe)
    if passed:
        return f"{name} succeeded after {attempts} attempt{'s'[: attempts > 1]} {where}."
    return f"{name} failed {_times(probe)} consecutively {where}. The instance was not started."


def liveness_failure(launch: Launch, probe: Probe) -> str:
    """What Cloud Run logs about a liveness probe that failed."""
    return (
        f"LIVENESS {probe.kind} probe failed {_times(probe)} consecutively "
        f"{_where(launch, probe)}. The instance has been shut down."
    )


def _times(probe: Probe) -> str:
    return f"{probe.threshold} time{'s'[: probe.threshold > 1]}"


def _where(launch: Launch, probe: Probe) -> str:
    path = f' path "{probe.path}"' if probe.kind == "HTTP" else ""
    return f'for container "{launch.container or "app-1"}" on port {launch.container_port}{path}'
