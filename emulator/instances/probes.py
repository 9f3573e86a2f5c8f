"""Startup probes: an instance takes requests once one succeeds."""

from __future__ import annotations

import asyncio
import contextlib
import time

import aiohttp

from emulator.instances.launch import Launch, Probe

# Cloud Run asks once a period. Here the period only sets how long an instance may take: asking more
# often costs nothing and starts it sooner.
_EAGER, _PATIENT, _EAGER_FOR = 0.025, 0.25, 10.0


async def passes(launch: Launch, port: int, exited: asyncio.Event) -> bool:
    """Wait until the instance on `port` answers its startup probe.

    False when it exited first, or when the probe's budget is spent.
    """
    probe = launch.probe
    began = time.monotonic()
    # A probe of another port than the container's goes there as it is.
    target = port if probe.port == launch.container_port else probe.port
    async with aiohttp.ClientSession() as session:
        while not exited.is_set():
            elapsed = time.monotonic() - began
            left = probe.budget - elapsed
            if left <= 0:
                return False
            if await _succeeds(session, probe, target, min(probe.timeout, left)):
                return not exited.is_set()
            pause = _EAGER if elapsed < _EAGER_FOR else _PATIENT
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(exited.wait(), pause)
    return False


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
    where = f'for container "{launch.container or "app-1"}" on port {launch.container_port}'
    if probe.kind == "HTTP":
        where += f' path "{probe.path}"'
    if passed:
        return f"{name} succeeded after {attempts} attempt{'s'[: attempts > 1]} {where}."
    times = f"{probe.threshold} time{'s'[: probe.threshold > 1]}"
    return f"{name} failed {times} consecutively {where}. The instance was not started."
