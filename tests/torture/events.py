"""What may happen at a call: the faults, the kills, and which of them Shipway cannot tell apart."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from scripts.cloud.session import TEMPORARY

_CODES = (400, 401, 403, 404, 408, 409, 412, 429, 500, 502, 503, 504)
_AFTER_THE_DEED = (408, 409, 500, 502, 503, 504)

ANY: dict[str, dict[str, Any]] = {
    **{f"{code}": {"name": "status", "code": code, "times": 1} for code in _CODES},
    **{f"{code}-always": {"name": "status", "code": code} for code in (401, 403, 404, 429, 503)},
    "429-retry-after": {"name": "status", "code": 429, "times": 1, "retry-after": 1},
    "503-twice": {"name": "status", "code": 503, "times": 2},
    "reset": {"name": "reset", "times": 1},
    "outage": {"name": "reset", "spread": True},
    "flapping": {"name": "reset", "every": 2, "spread": True},
    "lost": {"name": "lost", "times": 1},
    "cut": {"name": "cut", "times": 1},
    "html": {"name": "html", "times": 1},
    "html-always": {"name": "html"},
    "html-503": {"name": "html", "code": 503, "times": 1},
    "empty": {"name": "empty", "times": 1},
    "no-fields": {"name": "no-fields", "times": 1},
    "slow": {"name": "slow", "seconds": 2, "times": 1},
    "trickle": {"name": "trickle", "seconds": 2, "times": 1},
    "hang": {"name": "hang", "times": 1},
    "hang-always": {"name": "hang"},
}
READS: dict[str, dict[str, Any]] = {"stale": {"name": "stale", "times": 3}}
WRITES: dict[str, dict[str, Any]] = {
    **{
        f"{code}-done": {"name": "status", "code": code, "times": 1, "done": True}
        for code in _AFTER_THE_DEED
    },
    "html-done": {"name": "html", "times": 1, "done": True},
    "empty-done": {"name": "empty", "times": 1, "done": True},
    "no-fields-done": {"name": "no-fields", "times": 1, "done": True},
    "reset-done": {"name": "reset", "times": 1, "done": True},
    "hang-done": {"name": "hang", "times": 1, "done": True},
    "lost-then-outage": {"name": "lost", "spread": True},
}
UPLOADS: dict[str, dict[str, Any]] = {"drop-upload": {"name": "drop-upload", "times": 1}}
REVISIONS: dict[str, dict[str, Any]] = {
    "revision-slow": {"name": "revision-slow", "seconds": 2},
    "revision-crashes": {"name": "revision-crashes", "seconds": 0.2},
}
FAULTS = {**ANY, **READS, **WRITES, **UPLOADS, **REVISIONS}
KILLS = ("kill", "term", "int", "cancel")
CLOUD = "cloud-run-killed"
_ONE_HANDLER = ("term", "int")
_LASTING = ("outage", "flapping", "lost-then-outage", "hang", "hang-always", "hang-done")
"""The events, beside those that end in "-always", in which a command waits for its time to end."""

_TEMPORARY = tuple(f"{code}" for code in TEMPORARY if code != 429)
_LATE = ("slow", "trickle")
_REFUSED = ("400", "401", "403", "412")
# Alike to Shipway: it reads nothing of these answers that differs, except a text that it shows.
_OF_READS = (
    (*_TEMPORARY, "429", "html-503"),  # tried again, whatever the answer holds
    ("reset", "lost", "cut"),  # no whole answer: tried again
    ("429-always", "503-always"),
    ("401-always", "403-always"),
    _LATE,
)
_OF_WRITES = (
    (*_TEMPORARY, "html-503"),  # errors that may come after the deed, and the deed is not done
    tuple(f"{code}-done" for code in _TEMPORARY),
    ("lost", "cut", "reset-done"),  # done, and there is no whole answer
    ("html-done", "empty-done"),
    ("401-always", "403-always"),
    _LATE,
)

# At a verb's reads in other states than its first one: the command goes on in the same way.
_OF_READS_ELSEWHERE = (
    (  # gone when it is tried again
        *_TEMPORARY, "429", "429-retry-after", "html-503", "503-twice", "reset", "lost", "cut",
        *_LATE, "hang",
    ),
    ("outage", "flapping", "429-always", "503-always", "hang-always"),
    (*_REFUSED, "401-always", "403-always", "409"),
    ("404", "404-always"),
    ("html", "html-always", "empty"),
)  # fmt: skip


def lasts(event: str) -> bool:
    """Return whether a command waits for the end of its time in this event."""
    return event in _LASTING or event.endswith("-always")


def kills(*, writes: bool, first: bool) -> list[tuple[str, ...]]:
    """Return the kills at a call or at a moment, those that are alike to Shipway together.

    Args:
        writes: Whether the call changes something.
        first: Whether it is in the first state in which its verb is tried.
    """
    if writes or first:
        return [("kill",), _ONE_HANDLER, ("cancel",), (CLOUD,)]
    return [("kill",), (*_ONE_HANDLER, "cancel", CLOUD)]


def at(method: str, pattern: str, *, writes: bool, first: bool = True) -> list[tuple[str, ...]]:
    """Return the faults that a call can meet, those that are alike to Shipway together.

    Args:
        method: The call's method.
        pattern: The pattern of its path.
        writes: Whether it changes something.
        first: Whether it is in the first state in which its verb is tried.
    """
    wanted = [*ANY, *(WRITES if writes else READS), *(UPLOADS if method == "PATCH" else ())]
    alike = [*(_OF_WRITES if writes else _OF_READS)]
    if not (writes or first):
        alike = [*_OF_READS_ELSEWHERE]
    elif "/v2/" in pattern:  # a registry: a refusal of these credentials has a hint of its own
        alike += [("400", "412"), ("401", "403")]
    elif "/upload/" in pattern:  # 412 says that an earlier try was done
        alike += [("400", "401", "403")]
    else:
        alike += [_REFUSED]
    # Where JSON is asked for, anything else is wrong in the same way.
    if "/v1/" in pattern and (writes or first):
        alike += [("html", "empty")]
    known = {event for group in alike for event in group}
    return [*alike, *((event,) for event in wanted if event not in known)]


class Turns:
    """Takes one event of each group; those of a group take turns, so that each is tried."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._orders: dict[tuple[str, ...], Iterator[str]] = {}

    def one_of(self, group: tuple[str, ...]) -> str:
        if group not in self._orders:
            self._orders[group] = itertools.cycle(self._chance.sample(group, len(group)))
        return next(self._orders[group])
