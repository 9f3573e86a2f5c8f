"""Read many services: some threads, one connection for each, within Cloud Run's quota."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
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
_EACH = 2  # requests for each service
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
    """Keeps the requests to one region of a project below Cloud Run's quota: a bucket of tokens."""

    def __init__(self) -> None:
        self._full = 0.0
        """When the bucket will be full again."""

    def pause(self, requests: int, now: float) -> float:
        """Take tokens for requests; return the seconds to wait before they are sent.

        Args:
            requests: how many.
            now: the time in seconds.
        """
        self._full = max(now, self._full) + requests / _PER_SECOND
        return max(0.0, self._full - now - _BURST / _PER_SECOND)


def glance(
    regions: Sequence[CloudRun], say: Callable[[str], None]
) -> list[State | ShipError | None]:
    """Read services at the same time, two requests for each; errors stand beside the rest.

    Args:
        regions: each service in each of its regions.
        say: called with a line before the first pause.
    """
    paces: defaultdict[tuple[str, str], Pace] = defaultdict(Pace)
    lock = threading.Lock()
    told = False

    def wait(region: CloudRun) -> None:
        nonlocal told
        with lock:
            pause = paces[region.project, region.region].pause(_EACH, time.monotonic())
            tells, told = bool(pause) and not told, told or bool(pause)
        if tells:
            say(f"more services than may be read at once in {region.project}, {region.region}")
        time.sleep(pause)

    def reading(region: CloudRun) -> Callable[[], State | None]:
        def read() -> State | None:
            wait(region)
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
