"""Simulate rollouts: how many good releases are rolled back, and how many bad ones are caught.

    nox -s simulate [-- --releases N --seed N --write]
    nox -s simulate -- --after [--releases N --seed N --write]
    nox -s simulate -- --real N [--write]

The same traffic goes to four ways to decide: Shipway's evidence; two thresholds as in Flagger's
documentation; a z-test of the step so far, looked at every minute; and Kayenta's Mann-Whitney test.
`--write` puts the tables and the picture into docs/. `--after` simulates the time after the last
step instead, in which no stable is left to compare with. `--real` delivers N releases to a local
Cloud Run instead, under load.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import NormalDist, median
from typing import NamedTuple

from scripts.release.evidence import Evidence, Verdict, Window, judge

DOCS = Path(__file__).parent.parent / "docs"
TOLERANCE = 0.005  # worse-by: 0.5%
FALSE_ALARMS = 0.01
STEPS = (10, 50)  # at 100 % no stable is left to compare with
MINUTES = 5  # the bake of a step; one window a minute
REQUESTS = (100, 1_000, 10_000)  # in a step, by candidate and stable together
RATES = (0.0, 0.001, 0.01, 0.05)  # stable's share of errors
TRAFFIC = ("steady", "daily", "bursty")
GOOD: dict[str, Callable[[float], float]] = {
    "as stable": lambda rate: rate,
    "at the tolerance": lambda rate: rate + TOLERANCE,
}
BAD: dict[str, Callable[[float], float]] = {
    "2x": lambda rate: 2 * rate,
    "5x": lambda rate: 5 * rate,
    "+1 point": lambda rate: rate + 0.01,
    "10 %": lambda rate: max(rate, 0.1),
    "all": lambda _: 1.0,
}
_SLOW = 0.05  # the share of slow answers of both, which is watched at the same time


class Minute(NamedTuple):
    """One minute of a rollout: its step, its error window and its window of slow answers."""

    step: int
    errors: Window
    slow: Window


class Ended(NamedTuple):
    """How a method ended a rollout: the step of the alarm, and the failed answers until then."""

    step: int | None
    failed: int


Method = Callable[[Sequence[Minute], int], bool]
"""Takes the minutes so far and the number of this step's first one; returns: roll back?"""


def binomial(chance: random.Random, n: int, p: float) -> int:
    """Draw the number of successes of n tries.

    Large n are halved by the median of the tries' order, which is exact (Relles 1972,
    https://doi.org/10.1080/01621459.1972.10482421).
    """
    found = 0
    while n > 16 and 0 < p < 1:
        low = 1 + n // 2
        high = n + 1 - low
        middle = chance.betavariate(low, high)
        if middle <= p:
            found += low
            n, p = high - 1, (p - middle) / (1 - middle)
        else:
            n, p = low - 1, p / middle
    return found + (n if p >= 1 else sum(chance.random() < p for _ in range(n)) if p > 0 else 0)


def rollout(
    chance: random.Random, requests: int, rate: float, bad: Callable[[float], float], traffic: str
) -> Iterator[Minute]:
    """Yield the minutes of a rollout."""
    begin = chance.random()
    for number, percent in enumerate(STEPS):
        for minute in range(MINUTES):
            volume = usual = 1.0
            if traffic == "daily":  # an hour of it: both rise and fall together
                wave = math.sin(2 * math.pi * (begin + (number * MINUTES + minute) / 60))
                volume, usual = 1 + 0.8 * wave, 1 + 0.8 * wave
            elif traffic == "bursty":  # the volume varies, and one minute in ten is an incident
                volume = chance.gammavariate(0.5, 2)
                usual = 20 if chance.random() < 0.1 else 0.8
            total = round(requests / MINUTES * volume)
            candidate = binomial(chance, total, percent / 100)
            stable = total - candidate
            shared = min(1.0, rate * usual)
            yield Minute(
                number,
                Window(
                    candidate,
                    binomial(chance, candidate, min(1.0, bad(shared))),
                    stable,
                    binomial(chance, stable, shared),
                ),
                Window(
                    candidate,
                    binomial(chance, candidate, _SLOW),
                    stable,
                    binomial(chance, stable, _SLOW),
                ),
            )


def shipway() -> Method:
    """Return Shipway's way to decide, which remembers its evidence from minute to minute."""
    errors, slow = Evidence(), Evidence()

    def decide(minutes: Sequence[Minute], _: int) -> bool:
        nonlocal errors, slow
        errors = errors.after(minutes[-1].errors, TOLERANCE)
        slow = slow.after(minutes[-1].slow, 0.02)
        found: Verdict = judge([errors, slow], answers=0, at_least=0, false_alarms=FALSE_ALARMS)
        return found.verdict == "worse"

    return decide


def thresholds() -> Method:
    """Return two thresholds: a minute with fewer than 99 % good answers fails, the fifth one ends.

    Source: https://fluxcd.io/flagger/usage/metrics and /flagger/usage/how-it-works
    (`threshold: 5`, `request-success-rate` with `min: 99`).
    """
    failed = 0

    def decide(minutes: Sequence[Minute], _: int) -> bool:
        nonlocal failed
        window = minutes[-1].errors
        failed += window.bad > 0.01 * window.answers
        return failed >= 5

    return decide


def z_test() -> Method:
    """Return a one-sided z-test of two shares on the step so far, at 1 %."""
    bar = NormalDist().inv_cdf(1 - FALSE_ALARMS)

    def decide(minutes: Sequence[Minute], begin: int) -> bool:
        n, e, m, f = (sum(column) for column in zip(*(_counts(minutes[begin:])), strict=True))
        pooled = (e + f) / (n + m) if n and m else 0.0
        if not 0 < pooled < 1:
            return False
        return bool((e / n - f / m) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)) > bar)

    return decide


def mann_whitney() -> Method:
    """Return Kayenta's test at the end of a step: its shares of errors minute by minute.

    High, if the lower end of the 98 % confidence interval of the shift is above a quarter of the
    Hodges-Lehmann estimate. Source: kayenta-judge, MannWhitneyClassifier and NetflixACAJudge.
    """
    z = NormalDist().inv_cdf(0.99)

    def decide(minutes: Sequence[Minute], begin: int) -> bool:
        if len(minutes) - begin < MINUTES:
            return False
        rows = [*_counts(minutes[begin:])]
        mine = [e / n for n, e, _, _ in rows if n]
        theirs = [f / m for _, _, m, f in rows if m]
        n, m = len(mine), len(theirs)
        if not n or not m or mine == theirs:
            return False
        differences = sorted(one - other for one in mine for other in theirs)
        rank = max(0, math.floor(n * m / 2 - z * math.sqrt(n * m * (n + m + 1) / 12)))
        return bool(differences[rank] > 0.25 * median(differences))

    return decide


def _counts(minutes: Iterable[Minute]) -> Iterator[tuple[int, int, int, int]]:
    for minute in minutes:
        window = minute.errors
        yield window.answers, window.bad, window.stable_answers, window.stable_bad


METHODS: dict[str, Callable[[], Method]] = {
    "Shipway": shipway,
    "two thresholds": thresholds,
    "z-test": z_test,
    "Mann-Whitney": mann_whitney,
}


def ends(minutes: Sequence[Minute]) -> dict[str, Ended]:
    """Return how each method ends one rollout."""
    return {name: _end(make(), minutes) for name, make in METHODS.items()}


def _end(decide: Method, minutes: Sequence[Minute]) -> Ended:
    failed, begin = 0, 0
    for number, minute in enumerate(minutes):
        failed += minute.errors.bad
        if number and minute.step != minutes[number - 1].step:
            begin = number
        if decide(minutes[: number + 1], begin):
            return Ended(minute.step, failed)
    return Ended(None, failed)


class Cell(NamedTuple):
    """One cell of the simulation, and how often each method ended it how."""

    traffic: str
    requests: int
    rate: float
    kind: str
    releases: int
    caught: dict[str, tuple[int, ...]]
    """Method -> the number of releases that it rolled back in each step."""
    failed: dict[str, float]
    """Method -> failed answers of the candidate, on average of those that were rolled back."""


def simulate(seed: int, traffic: str, requests: int, rate: float, kind: str, n: int) -> Cell:
    """Simulate the releases of one cell."""
    chance = random.Random(f"{seed} {traffic} {requests} {rate} {kind}")
    bad = {**GOOD, **BAD}[kind]
    caught = {name: [0] * len(STEPS) for name in METHODS}
    failed = dict.fromkeys(METHODS, 0)
    for _ in range(n):
        for name, ended in ends([*rollout(chance, requests, rate, bad, traffic)]).items():
            if ended.step is not None:
                caught[name][ended.step] += 1
                failed[name] += ended.failed
    return Cell(
        traffic,
        requests,
        rate,
        kind,
        n,
        {name: tuple(counts) for name, counts in caught.items()},
        {name: failed[name] / max(1, sum(caught[name])) for name in METHODS},
    )


def cells(seed: int, releases: int) -> list[Cell]:
    """Simulate everything, on all processors."""
    wanted = [
        (seed, traffic, requests, rate, kind, releases)
        for traffic in TRAFFIC
        for requests in REQUESTS
        for rate in RATES
        for kind in (*GOOD, *BAD)
        if rate or kind not in ("2x", "5x")  # twice nothing is nothing
    ]
    with ProcessPoolExecutor(
        os.process_cpu_count() if sys.version_info >= (3, 13) else None
    ) as pool:
        return [*pool.map(simulate, *zip(*wanted, strict=True))]


def looked_at(seed: int, releases: int, minutes: int) -> dict[str, list[float]]:
    """Return the share of good releases that were rolled back by each minute of one long step.

    The Mann-Whitney test is left out: it looks once, at the end of a step.
    """
    chance = random.Random(seed)
    looking = {name: make for name, make in METHODS.items() if name != "Mann-Whitney"}
    alarms = {name: [0] * minutes for name in looking}
    for _ in range(releases):
        deciding = {name: make() for name, make in looking.items()}
        seen: list[Minute] = []
        for number in range(minutes):
            counts = [
                Window(n, binomial(chance, n, share), m, binomial(chance, m, share))
                for share in (0.002, _SLOW)
                for n in (binomial(chance, 400, 0.5),)
                for m in (400 - n,)
            ]
            seen.append(Minute(0, *counts))
            for name, decide in [*deciding.items()]:
                if decide(seen, 0):
                    alarms[name][number] += 1
                    del deciding[name]
    totals: dict[str, list[float]] = {}
    for name, found in alarms.items():
        sums = [sum(found[: number + 1]) for number in range(minutes)]
        totals[name] = [total / releases for total in sums]
    return totals


def table_of_good(found: Sequence[Cell]) -> list[str]:
    """Return the lines of the table of good releases that were rolled back."""
    lines = [
        f"| Release | Traffic | Requests a step | Errors | {' | '.join(METHODS)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(METHODS),
    ]
    for kind in GOOD:
        for cell in found:
            if cell.kind == kind:
                back = (f"{100 * sum(cell.caught[m]) / cell.releases:.1f} %" for m in METHODS)
                lines.append(f"{_row(cell, kind)} | {' | '.join(back)} |")
    return lines


def _row(cell: Cell, kind: str) -> str:
    return f"| {kind} | {cell.traffic} | {cell.requests:,} | {100 * cell.rate:g} %"


def table_of_bad(found: Sequence[Cell]) -> list[str]:
    """Return the lines of the table of bad releases: caught, in the first step, failed answers."""
    lines = [
        f"| Release | Traffic | Requests a step | Errors | {' | '.join(METHODS)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(METHODS),
    ]
    for kind in BAD:
        for cell in found:
            if cell.kind != kind:
                continue
            within = " (in the tolerance)" if BAD[kind](cell.rate) - cell.rate <= TOLERANCE else ""
            shown = []
            for method in METHODS:
                by_step = cell.caught[method]
                caught = f"{100 * sum(by_step) / cell.releases:.0f} %"
                first = f"{100 * by_step[0] / cell.releases:.0f} %"
                shown.append(
                    f"{caught} ({first}), {cell.failed[method]:.0f}" if sum(by_step) else "0 %"
                )
            lines.append(f"{_row(cell, kind + within)} | {' | '.join(shown)} |")
    return lines


_COLORS = {
    "Shipway": "#1a73e8",
    "two thresholds": "#e37400",
    "z-test": "#d93025",
}


def picture(found: dict[str, list[float]]) -> str:
    """Draw the share of good releases that were rolled back by each minute, as SVG."""
    width, height, left, top = 560, 260, 50, 20
    whole, bottom = left + width + 130, top + height
    minutes = len(next(iter(found.values())))
    highest = max(0.02, *(line[-1] for line in found.values()))

    def x(minute: float) -> float:
        return left + width * minute / minutes

    def y(share: float) -> float:
        return top + height * (1 - share / highest)

    def text(across: float, down: float, words: str, more: str = "") -> str:
        return f'<text x="{across:.0f}" y="{down:.0f}"{more}>{words}</text>'

    def line(path: str, more: str) -> str:
        return f'<path d="{path}" fill="none" {more}/>'

    gray, middle = 'stroke="#5f6368"', ' text-anchor="middle"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {bottom + 50}"'
        ' font-family="sans-serif" font-size="12">',
        "<title>Good releases that are rolled back, the longer someone looks</title>",
        f'<rect width="{whole}" height="{bottom + 50}" fill="white"/>',
        line(f"M{left} {top}V{bottom}H{left + width}", gray),
        text(left + width / 2, bottom + 38, "minutes", middle),
        line(f"M{left} {y(FALSE_ALARMS):.1f}h{width}", f'{gray} stroke-dasharray="4 4"'),
        text(left + width - 90, y(FALSE_ALARMS) - 4, f"promised: {FALSE_ALARMS:.0%}"),
    ]
    for part in (0, 0.25, 0.5, 0.75, 1):
        share, minute = highest * part, minutes * part
        parts.append(text(left - 6, y(share) + 4, f"{share:.0%}", ' text-anchor="end"'))
        parts.append(text(x(minute), bottom + 18, f"{minute:.0f}", middle))
    label = 0.0
    for name, shares in sorted(found.items(), key=lambda item: -item[1][-1]):
        points = "L".join(f"{x(n + 1):.1f} {y(share):.1f}" for n, share in enumerate(shares))
        parts.append(line(f"M{points}", f'stroke="{_COLORS[name]}" stroke-width="2"'))
        label = max(y(shares[-1]) + 4, label + 14)  # names that would overlap go below each other
        parts.append(text(left + width + 6, label, name, f' fill="{_COLORS[name]}"'))
    return "\n".join([*parts, "</svg>", ""])


def main(argv: Sequence[str]) -> int:
    """Simulate and print the tables; with --write, put them into docs/."""
    parser = argparse.ArgumentParser(prog="nox -s simulate --")
    parser.add_argument("--releases", type=int, default=1000, help="in each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--write", action="store_true", help="write docs/simulation.md and its picture"
    )
    parser.add_argument("--real", type=int, help="deliver so many releases instead")
    parser.add_argument("--after", action="store_true", help="the time after the last step instead")
    options = parser.parse_args(argv)
    if options.after:
        return _after(options.seed, options.releases, write=options.write)
    if options.real:
        return _real(options.real, write=options.write)
    began = time.monotonic()
    found = cells(options.seed, options.releases)
    lines = [
        f"Seed {options.seed}, {options.releases:,} releases in each row.",
        "",
        "### Good releases that were rolled back",
        "",
        *table_of_good(found),
        "",
        "### Bad releases that were rolled back",
        "",
        "In all, in parentheses those of the first step, and the failed answers until then.",
        "",
        *table_of_bad(found),
    ]
    print("\n".join(lines))
    worst = max(sum(c.caught["Shipway"]) / c.releases for c in found if c.kind in GOOD)
    if options.write:
        _put("<!-- nox -s simulate -->\n", lines)
        drawn = picture(looked_at(options.seed, options.releases, 240))
        (DOCS / "simulation.svg").write_text(drawn, encoding="utf-8")
    took = time.monotonic() - began
    print(f"\nworst of the good: {worst:.2%} (promised: {FALSE_ALARMS:.0%}); {took:.0f} s")
    # Of so many rows one may pass the promise by chance: three standard deviations are allowed.
    allowed = FALSE_ALARMS + 3 * math.sqrt(FALSE_ALARMS / options.releases)
    return int(worst > allowed)


def _put(mark: str, lines: Sequence[str]) -> None:
    """Write lines below their mark in docs/simulation.md, up to the next mark or section."""
    page = DOCS / "simulation.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(mark)
    following = re.search("^(<!-- |## )", rest, re.MULTILINE)
    text = "\n".join([head + mark.rstrip(), *lines, ""])
    page.write_text(
        text + (f"\n{rest[following.start() :]}" if following else ""), encoding="utf-8"
    )


def _after(seed: int, releases: int, *, write: bool) -> int:
    from tests import simulate_after

    lines = simulate_after.table(seed, releases)
    print("\n".join(lines))
    if write:
        _put("<!-- nox -s simulate -- --after -->\n", lines)
    return 0


def _real(number: int, *, write: bool) -> int:
    from tests import simulate_real

    began = time.monotonic()
    lines, problems = simulate_real.run(number)
    print("\n".join(lines))
    if write and not problems:
        _put("<!-- nox -s simulate -- --real -->\n", lines)
    print(f"\n{problems} problems; {time.monotonic() - began:.0f} s")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
