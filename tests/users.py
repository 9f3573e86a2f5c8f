"""Users of a service, who send requests all the time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import requests


@contextmanager
def asking(url: str, number: int = 2, pause: float = 0.01) -> Iterator[Counter[bool]]:
    """Send requests until the end; yield how many failed (True), and how many did not."""
    ended = threading.Event()
    answers: Counter[bool] = Counter()

    def ask() -> None:
        while not ended.is_set():
            try:  # a new connection each time, as new users have
                answers[requests.get(url, timeout=60).status_code >= 500] += 1
            except requests.exceptions.RequestException:
                answers[True] += 1
            ended.wait(pause)

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()
