"""Read many services: some threads, one connection for each, within Cloud Run's quota."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.cloud.patience import Patience
from scripts.config.pipelines import Pipeline, seconds
from scripts.errors import ShipError, bug
from scripts.release.state import State

T = TypeVar("T")

_AT_ONCE = 16
_BURST, _PER_SECOND = 450, 2.5
"""Requests to one region of a project: at most 600 in any minute, the smallest quota known.

A project's own is in its console, as "Read requests per minute per region" of the Cloud Run Admin
API. Source: https://cloud.google.com/run/quotas
"""


def regions(
    pipelines: Sequence[Pipeline], timeout: str, say: Callable[[str], None]
) -> list[CloudRun]:
    """Return each service in each of its regions.

    Services of one project share credentials and connections.

    Args:
        pipelines: the files of each service.
        timeout: how long to keep trying while Google fails to answer.
        say: called with a line before each pause.
    """
    shared: dict[tuple[object, ...], Google] = {}
    found = []
    for pipeline in pipelines:
        environment = pipeline.environment
        key = (environment.project, environment.credentials, environment.endpoint)
        if key not in shared:
            patience = Patience(seconds(timeout), say)
            shared[key] = Google(pipeline, dry_run=True, patience=patience)
        found += [CloudRun(shared[key], pipeline, region) for region in environment.regions]
    return found


class Pace:
    """Keeps the reads of each project and region below Cloud Run's quota: a bucket of tokens.

    Args:
        say: called with a line before the first pause.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._free: dict[tuple[str, str], float] = {}
        self._told = False

    def take(self, region: CloudRun, requests: int) -> None:
        """Wait until so many requests may be sent."""
        key = region.project, region.region
        with self._lock:
            now = time.monotonic()
            # The time at which the bucket is full again.
            full = max(now, self._free.get(key, 0.0)) + requests / _PER_SECOND
            self._free[key] = full
            pause = full - now - _BURST / _PER_SECOND
            told, self._told = self._told, self._told or pause > 0
        if pause > 0:
            if not told:
                self._say(f"more services than {key[0]}, {key[1]} may be asked for at once: slower")
            time.sleep(pause)


def glance(
    regions: Sequence[CloudRun], say: Callable[[str], None]
) -> list[State | ShipError | None]:
    """Read services at the same time, two requests for each; errors stand beside the rest.

    Args:
        regions: each service in each of its regions.
        say: called with a line before the first pause.
    """
    pace = Pace(say)

    def reading(region: CloudRun) -> Callable[[], State | None]:
        def read() -> State | None:
            pace.take(region, 2)
            return region.glance()

        return read

    return in_threads([reading(region) for region in regions])


def in_threads(calls: Sequence[Callable[[], T]], most: int = _AT_ONCE) -> list[T | ShipError]:
    """Call functions in some threads; return what each returned, or its error, in their order.

    Ctrl-C does not wait for them.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(calls)):
        waiting.put(number)
    results: dict[int, T | ShipError] = {}

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results[number] = calls[number]()
            except ShipError as error:
                results[number] = error
            except Exception as error:
                results[number] = bug(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(most, len(calls)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(calls))]
