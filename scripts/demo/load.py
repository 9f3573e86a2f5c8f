"""Send a steady load of requests, and note which revision answered each."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """One request: when it was sent (monotonic seconds), and the revision that answered.

    The revision is None if the request failed.
    """

    sent: float
    revision: str | None


HEAVY, LIGHT = 300.0, 50.0
"""Rates of a load, in requests per second."""


class Load:
    """Requests to a URL at a steady rate, from threads that keep their connections.

    Args:
        url: the service's URL; its /version names the revision.
        rate: requests per second, of all threads together.
        threads: how many requests run at the same time at most.
    """

    def __init__(self, url: str, rate: float = 500.0, threads: int = 6) -> None:
        self.address = urlsplit(url).netloc
        self._count = threads
        self.set_rate(rate)
        self._answers: list[list[Answer]] = [[] for _ in range(threads)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(answers,), daemon=True)
            for answers in self._answers
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def set_rate(self, rate: float) -> None:
        """Change the requests per second, of all threads together."""
        self._pause = self._count / rate

    def answers(self, since: float = 0.0, until: float = float("inf")) -> list[Answer]:
        """Return the requests of a span of monotonic seconds, in no particular order."""
        return [
            answer
            for answers in self._answers
            for answer in answers.copy()
            if since <= answer.sent < until
        ]

    def _run(self, answers: list[Answer]) -> None:
        connection = HTTPConnection(self.address, timeout=30)
        due = time.monotonic()
        while not self._stop.is_set():
            sent = time.monotonic()
            answers.append(Answer(sent, _ask(connection)))
            # The rate is a ceiling: a late answer is not followed by a burst.
            due = max(due + self._pause, sent)
            self._stop.wait(max(0.0, due - time.monotonic()))
        connection.close()


def _ask(connection: HTTPConnection) -> str | None:
    try:
        connection.request("GET", "/version")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            return None
        found: Any = json.loads(body).get("revision")
    except (OSError, HTTPException, ValueError, AttributeError):
        connection.close()
        return None
    return str(found)


def observed(answers: list[Answer]) -> dict[str, float]:
    """Return each revision's percentage of the answered requests."""
    counts = Counter(answer.revision for answer in answers if answer.revision)
    total = sum(counts.values())
    return {name: 100.0 * count / total for name, count in counts.items()}


def failed(answers: list[Answer]) -> int:
    """Count the requests that were not answered with 200."""
    return sum(answer.revision is None for answer in answers)
