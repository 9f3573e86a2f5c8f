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
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log, log1p, sqrt
from typing import Literal

import msgspec

SIZES = (0.0, 0.5, 2.0, 8.0, 32.0)
"""The sizes of the bets. The first one bets nothing, which bounds what the others can lose."""
_START = (0.04, 0.24, 0.24, 0.24, 0.24)  # the part of the capital in each
_MIXED = 0.01  # of the capital, spread anew after each window
_LARGEST = 0.95  # of the size at which one answer could lose everything
_KEPT = 0.9  # of the past that says what is usual, per window: about the last ten count
_PRIOR = (0.1, 100.0)  # bad answers and answers that stable starts with


class Window(msgspec.Struct, frozen=True, array_like=True):
    """The answers of one stretch of time: how many, and how many of them were bad."""

    answers: int
    bad: int
    stable_answers: int
    stable_bad: int


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

    def after(self, window: Window, tolerance: float, *, baseline: float | None = None) -> Evidence:
        """Return the evidence after one more window.

        Args:
            window: the answers.
            tolerance: how much larger the candidate's share may be; 0.005 are 0.5 points.
            baseline: stable's share before the rollout, where stable no longer answers.
        """
        x = self.usual if baseline is None else baseline
        gains = [_gain(size, window, x, tolerance, alone=baseline is not None) for size in SIZES]
        top = max(gains)
        held = [part * exp(gain - top) for part, gain in zip(self.spread, gains, strict=True)]
        total = sum(held)
        return Evidence(
            self.capital + top + log(total),
            tuple((1 - _MIXED) * h / total + _MIXED * s for h, s in zip(held, _START, strict=True)),
            self.answers * _KEPT + window.stable_answers + _PRIOR[1] * (1 - _KEPT),
            self.bad * _KEPT + window.stable_bad + _PRIOR[0] * (1 - _KEPT),
        )


def _gain(size: float, window: Window, x: float, tolerance: float, *, alone: bool) -> float:
    """Return the logarithm of what one bet multiplies its capital by in a window."""
    n, m = window.answers, window.stable_answers
    if not size or not n or (not m and not alone):
        return 0.0
    allowed = min(x + tolerance, 1 - 1e-9)
    ratio = 0.0 if alone else n / m
    largest = min(1 / allowed if allowed else inf, 1 / (ratio * (1 - x)) if ratio else inf)
    k = min(size, _LARGEST * largest)
    gain = window.bad * log1p(k * (1 - allowed)) + (n - window.bad) * log1p(-k * allowed)
    if not alone:
        gain += window.stable_bad * log1p(-k * ratio * (1 - x))
        gain += (m - window.stable_bad) * log1p(k * ratio * x)
    return gain


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
