"""Simulate the watch after the last step (`nox -s simulate -- --after`)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import NamedTuple

from scripts.config.formats import Watch
from scripts.release.evidence import Evidence, Window, judge
from scripts.release.watch import Point, promise
from tests.simulate import BAD, FALSE_ALARMS, GOOD, TOLERANCE, binomial

KINDS: dict[str, Callable[[float], float]] = {**GOOD, **BAD}
TRAFFIC = ("steady", "day", "bursty")
REQUESTS = (20, 200, 1000)  # a minute
RATES = (0.001, 0.01, 0.05)
_SHARES = [*[1.0] * 60, *[0.9] * 10, *[0.5] * 10]  # stable's traffic: an hour, then the rollout
_AFTER = 30  # minutes


class Row(NamedTuple):
    """What happened to the releases of one kind of traffic."""

    traffic: str
    requests: int
    rate: float
    ended: dict[str, list[int]]
    """Kind -> the minutes after which releases were rolled back."""
    mean_alone: int
    """Releases as stable that a limit of the mean alone would have rolled back."""


def _minutes(
    chance: random.Random, traffic: str, requests: int, rate: float, bad: Callable[[float], float]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return (answers, bad ones) of each minute: stable's, then the candidate's at 100 %."""
    begin = chance.random()
    found = []
    for number, part in enumerate([*_SHARES, *[1.0] * _AFTER]):
        volume = usual = 1.0
        if traffic == "day":  # over a day, both rise and fall together
            volume = usual = 1 + 0.8 * math.sin(2 * math.pi * (begin + number / 1440))
        elif traffic == "bursty":  # as during a rollout
            volume = chance.gammavariate(0.5, 2)
            usual = 20 if chance.random() < 0.1 else 0.8
        shared = min(1.0, rate * usual)
        share = shared if number < len(_SHARES) else min(1.0, bad(shared))
        answers = round(requests * volume * part)
        found.append((answers, binomial(chance, answers, share)))
    return found[: len(_SHARES)], found[len(_SHARES) :]


def _promised(before: list[tuple[int, int]]) -> float | None:
    points = [
        Point(revision="old", start=60.0 * n, end=60.0 * (n + 1), is_error=is_error,
              latencies={(1.0, 2.0): number})
        for n, (answers, bad) in enumerate(before)
        for is_error, number in ((True, bad), (False, answers - bad))
    ]  # fmt: skip
    found = promise(points, "old", Watch(), math.inf)
    return found and found.errors


def _mean_alone(before: list[tuple[int, int]]) -> float:
    answers, bad = (sum(column) for column in zip(*before, strict=True))
    return (bad + 1 + 2 * math.sqrt(bad + 1)) / answers


def _ends(promised: float | None, after: list[tuple[int, int]]) -> int | None:
    """Return after how many minutes a release is rolled back, or None if it stays."""
    if promised is None:
        return None
    evidence, other = Evidence(), Evidence()
    for minute, (answers, bad) in enumerate(after):
        evidence = evidence.after(Window(answers, bad, 0, 0), TOLERANCE, baseline=promised)
        # The promise is shared with slow answers, and with what was seen during the rollout.
        asked = [evidence, other, other, other]
        found = judge(asked, answers=0, at_least=0, false_alarms=FALSE_ALARMS)
        if found.verdict == "worse":
            return minute + 1
    return None


def simulate(seed: int, traffic: str, requests: int, rate: float, releases: int) -> Row:
    """Simulate the releases of one row."""
    chance = random.Random(f"{seed} after {traffic} {requests} {rate}")
    ended: dict[str, list[int]] = {kind: [] for kind in KINDS}
    alone = 0
    for kind, bad in KINDS.items():
        for _ in range(releases):
            before, after = _minutes(chance, traffic, requests, rate, bad)
            if minute := _ends(_promised(before), after):
                ended[kind].append(minute)
            if kind == "as stable":
                alone += _ends(_mean_alone(before), after) is not None
    return Row(traffic, requests, rate, ended, alone)


def table(seed: int, releases: int) -> list[str]:
    """Simulate everything, on all processors; return the lines of the table."""
    wanted = [
        (seed, traffic, requests, rate, releases)
        for traffic in TRAFFIC
        for requests in REQUESTS
        for rate in RATES
    ]
    lines = [
        f"Seed {seed}, {releases:,} releases in each cell.",
        "",
        f"| Traffic | Requests a minute | Errors | {' | '.join(KINDS)} | as stable, mean alone |",
        "| --- | --- | --- |" + " --- |" * (len(KINDS) + 1),
    ]
    with ProcessPoolExecutor() as pool:
        for row in pool.map(simulate, *zip(*wanted, strict=True)):
            cells = [
                f"{100 * len(ended) / releases:.0f} %"
                + (f" ({median(ended):.0f} min)" if ended else "")
                for ended in row.ended.values()
            ]
            lines.append(
                f"| {row.traffic} | {row.requests:,} | {100 * row.rate:g} % | {' | '.join(cells)}"
                f" | {100 * row.mean_alone / releases:.0f} % |"
            )
    return lines
