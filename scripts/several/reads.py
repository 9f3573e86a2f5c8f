"""Read many services: some threads, one connection for each, within Cloud Run's quota."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.cloud.patience import Patience
from scripts.config.pipelines import Pipeline, seconds
from scripts.errors import ShipError, bug

T = TypeVar("T")

_AT_ONCE = 16


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
