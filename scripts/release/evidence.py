"""Whether a candidate answers worse than stable: evidence that may be looked at any time. Pure.

The evidence is the capital of a bet against the candidate. It starts at 1. While the candidate's
share of bad answers is at most stable's share plus the tolerance, no bet gains on average, however
both shares change from window to window. So a good candidate's evidence reaches 1/a in at most the
share a of all rollouts, whenever and however often someone looks (Ville's inequality).

A window has n answers of the candidate and m of stable. A bet of size k multiplies the evidence by

    1 + k (y - x - tolerance)   for each answer of the candidate, y = 1 if it is bad, otherwise 0
    1 - k (n / m) (y - x)       for each answer of stable

for any x, here stable's share in earlier windows. If the shares in this window are c and s, the
mean of each factor is 1 + k (c - x - tolerance) and 1 - k (n / m) (s - x). As 1 + z <= exp(z), the
mean of their product is at most exp(k n (c - s - tolerance)), which is at most 1 unless c is more
than s + tolerance. This is the e-variable of Turner and Grünwald for two shares
(https://arxiv.org/abs/2203.09785), written as a bet. Lindon and Malek's test of counts
(https://arxiv.org/abs/2011.03567) has no tolerance in percentage points, because its null
hypothesis knows only the ratio of the shares.

The size of the best bet is unknown, so the capital is spread over several sizes. After each window
it moves to those that gained, and a fixed part is spread anew, so that an hour in which no bet was
right costs no more than that hour (Herbster and Warmuth, Tracking the best expert, 1998).

After half an hour of windows, several of them share a bet, so that a verdict on days of them takes
milliseconds. Its size, its x and the largest n / m that it takes are fixed at its first window; a
window with a larger n / m begins the next bet. In a window with a smaller one, the logarithms of
stable's factors are replaced by their chord from 0 to the largest n / m. They are concave in n / m,
so the chord is below them, and no bet gains on average. Chords can be summed over all windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from math import exp, inf, log, log1p, sqrt
from operator import mul, truediv
from typing import Literal, NamedTuple

import msgspec

SIZES = (0.0, 0.5, 2.0, 8.0, 32.0)
"""The sizes of the bets. The first one bets nothing, which bounds what the others can lose."""
_START = (0.04, 0.24, 0.24, 0.24, 0.24)  # the part of the capital in each
_MIXED = 0.01  # of the capital, spread anew after each window
_LARGEST = 0.95  # of the size at which one answer could lose everything
_KEPT = 0.9  # of the past that says what is usual, per window: about the last ten count
_PRIOR = (0.1, 100.0)  # bad answers and answers that stable starts with
_ALONE = 30  # the first windows, which have a bet each
_TOGETHER = 480  # windows share a bet at most
_LEEWAY = 1.25  # from a bet's first n / m to the largest one


class Window(NamedTuple):
    """The answers of one stretch of time: how many, and how many of them were bad."""

    answers: int
    bad: int
    stable_answers: int
    stable_bad: int

    @property
    def ratio(self) -> float:
        """The candidate's answers for each of stable's; 0 where stable has none."""
        return self.answers / self.stable_answers if self.stable_answers else 0.0

    @property
    def weighted(self) -> float:
        """Stable's bad answers, each as many times as `ratio` says."""
        return self.stable_bad * self.ratio


class Shared(NamedTuple):
    """Several windows that share a bet: as a window, with the sums of what it has.

    Attributes:
        answers: the candidate's; of a window without answers of stable, none.
        bad: likewise.
        ratio: the largest that a window of it may have.
        weighted: the sum of what each window has.
    """

    answers: int
    bad: int
    stable_answers: int
    stable_bad: int
    ratio: float
    weighted: float


def bets(
    windows: Sequence[Window], begin: int = 0, *, alone: bool = False
) -> Iterator[tuple[int, Window | Shared]]:
    """Yield what each bet is about: (the number of windows up to its end; its answers).

    Args:
        windows: oldest first.
        begin: the number of windows up to the end of an earlier bet.
        alone: whether stable no longer answers.
    """
    yield from enumerate(windows[begin:_ALONE], begin + 1)
    begin = first = max(begin, _ALONE)
    if begin >= len(windows):
        return
    rest = windows[begin:]
    # Not by `zip`, whose many iterators wake the garbage collector.
    flat = [*chain.from_iterable(rest)]
    mine, my_bad, theirs, their_bad = (flat[n::4] for n in range(4))
    if alone:
        ratios = [0.0] * len(mine)
    else:
        if not all(theirs):  # nothing to compare with in a window without answers of stable
            mine, my_bad = ([*map(mul, column, map(bool, theirs))] for column in (mine, my_bad))
            theirs = [*map(max, theirs, repeat(1))]  # one good answer more is as good as none
        ratios = [*map(truediv, mine, theirs)]
    while begin < len(windows):
        low = begin - first
        high = low + min(begin // 4, _TOGETHER)
        largest = ratios[low] * _LEEWAY
        if max(ratios[low:high]) > largest:
            high = next(n for n in range(low, high) if ratios[n] > largest)
        part = slice(low, high)
        shared = Shared(
            sum(mine[part]), sum(my_bad[part]), sum(theirs[part]), sum(their_bad[part]),
            largest, sum(map(mul, their_bad[part], ratios[part])),
        )  # fmt: skip
        begin = min(first + high, len(windows))
        yield begin, shared


class Evidence(msgspec.Struct, frozen=True, array_like=True):
    """What the windows so far say against a candidate.

    Attributes:
        capital: the natural logarithm of the evidence.
        spread: the part of the capital in each bet of `SIZES`; the parts sum to 1.
        answers: stable's answers in the last windows; older ones count less.
        bad: how many of them were bad.
    """

    capital: float = 0.0
    spread: tuple[float, ...] = _START
    answers: float = _PRIOR[1]
    bad: float = _PRIOR[0]

    @property
    def usual(self) -> float:
        """Stable's share of bad answers in the last windows."""
        return self.bad / self.answers

    def after(
        self, window: Window | Shared, tolerance: float, *, baseline: float | None = None
    ) -> Evidence:
        """Return the evidence after one more bet.

        Args:
            window: the answers that it is about.
            tolerance: how much larger the candidate's share may be; 0.005 are 0.5 points.
            baseline: stable's share before the rollout, where stable no longer answers.
        """
        x = self.usual if baseline is None else baseline
        gains = _gains(window, x, tolerance, alone=baseline is not None)
        top = max(gains)
        held = [part * exp(gain - top) for part, gain in zip(self.spread, gains, strict=True)]
        total = sum(held)
        return Evidence(
            self.capital + top + log(total),
            tuple((1 - _MIXED) * h / total + _MIXED * s for h, s in zip(held, _START, strict=True)),
            self.answers * _KEPT + window.stable_answers + _PRIOR[1] * (1 - _KEPT),
            self.bad * _KEPT + window.stable_bad + _PRIOR[0] * (1 - _KEPT),
        )


def _gains(window: Window | Shared, x: float, tolerance: float, *, alone: bool) -> list[float]:
    """Return the logarithm of what each size of bet multiplies its capital by."""
    n, bad = window.answers, window.bad
    if not n or (not alone and not window.ratio):
        return [0.0] * len(SIZES)
    ratio = 0.0 if alone else window.ratio
    allowed = min(x + tolerance, 1.0)
    largest = min(1 / allowed if allowed else inf, 1 / (ratio * (1 - x)) if ratio else inf)
    gains: dict[float, float] = {0.0: 0.0}
    taken = [min(size, _LARGEST * largest) for size in SIZES]
    for k in taken:
        if k not in gains:
            gain = bad * log1p(k * (1 - allowed)) + (n - bad) * log1p(-k * allowed)
            if ratio:
                gain += window.weighted / ratio * log1p(-k * ratio * (1 - x))
                gain += (n - window.weighted) / ratio * log1p(k * ratio * x)
            gains[k] = gain
    return [gains[k] for k in taken]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence means now.

    Attributes:
        verdict: whether the candidate is worse than stable by more than the tolerance.
        evidence: the evidence against it; a good candidate starts at 1 and seldom gets far.
        bar: what it has to reach.
        missing: the answers that are missing before the candidate may count as no worse.
    """

    verdict: Literal["worse", "no worse", "unclear"]
    evidence: float
    bar: float
    missing: int


def mean(questions: Sequence[Evidence]) -> float:
    """Return the mean of the evidence of several questions."""
    return sum(exp(min(one.capital, 700.0)) for one in questions) / max(1, len(questions))


def judge(
    questions: Sequence[Evidence], *, answers: int, at_least: int, false_alarms: float
) -> Verdict:
    """Judge a candidate by the evidence so far.

    Several questions (errors, slow answers, each region) share one promise: their mean counts,
    because the mean of bets that gain nothing on average gains nothing on average.

    Args:
        questions: the evidence of each question.
        answers: the candidate's answers so far.
        at_least: the answers that it needs to count as no worse.
        false_alarms: the share of good candidates that may be called worse; 0.01 is one in 100.
    """
    evidence = mean(questions)
    bar = 1 / false_alarms
    missing = max(0, at_least - answers)
    verdict: Literal["worse", "no worse", "unclear"] = "no worse"
    if evidence >= bar:
        verdict = "worse"
    elif missing or evidence >= sqrt(bar):
        # Half way to the bar, on the scale of the bets, is no time to give it more traffic. Of good
        # candidates, at most the root of `false_alarms` ever get there, and wait a while.
        verdict = "unclear"
    return Verdict(verdict=verdict, evidence=evidence, bar=bar, missing=missing)
