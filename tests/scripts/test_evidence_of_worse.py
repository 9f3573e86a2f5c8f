"""The evidence against a candidate keeps its promise, whatever the shares and however often."""

from __future__ import annotations

import random
from math import comb, exp

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scripts.release.evidence import Evidence, Window, bets, judge
from tests import simulate

SHARES = st.floats(0, 1)


def chance_of(n: int, bad: int, share: float) -> float:
    return comb(n, bad) * share**bad * (1 - share) ** (n - bad)


@st.composite
def earlier(draw: st.DrawFn) -> Evidence:
    evidence = Evidence()
    for _ in range(draw(st.integers(0, 4))):
        n, m = draw(st.integers(0, 400)), draw(st.integers(0, 400))
        window = Window(n, draw(st.integers(0, n)), m, draw(st.integers(0, m)))
        evidence = evidence.after(window, 0.005)
    return evidence


@given(earlier(), st.integers(0, 7), st.integers(0, 7), SHARES, SHARES, st.floats(0, 0.3))
def test_no_bet_gains_on_average_while_the_candidate_is_no_worse(
    evidence: Evidence, n: int, m: int, stable: float, better: float, tolerance: float
) -> None:
    """Sums over all outcomes of one window: the mean is exact, not sampled."""
    candidate = min(1.0, stable + tolerance) * better
    mean = sum(
        chance_of(n, bad, candidate)
        * chance_of(m, other, stable)
        * exp(evidence.after(Window(n, bad, m, other), tolerance).capital - evidence.capital)
        for bad in range(n + 1)
        for other in range(m + 1)
    )
    assert mean <= 1 + 1e-9


@given(earlier(), st.integers(0, 9), SHARES, SHARES, st.floats(0, 0.3))
@example(Evidence(), 9, 1.0, 1.0, 0.0)  # nothing can be worse
def test_nor_against_a_baseline(
    evidence: Evidence, n: int, usual: float, better: float, tolerance: float
) -> None:
    candidate = min(1.0, usual + tolerance) * better
    mean = sum(
        chance_of(n, bad, candidate)
        * exp(
            evidence.after(Window(n, bad, 0, 0), tolerance, baseline=usual).capital
            - evidence.capital
        )
        for bad in range(n + 1)
    )
    assert mean <= 1 + 1e-9


def capital(windows: list[Window], evidence: Evidence, tolerance: float) -> float:
    """Return the evidence after windows that follow so many others that they may share a bet."""
    for _, bet in bets([Window(0, 0, 9, 0)] * 40 + windows, 40):
        evidence = evidence.after(bet, tolerance)
    return evidence.capital


@given(
    earlier(),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=3),
    st.integers(0, 5), st.integers(0, 5), SHARES, SHARES, st.floats(0, 0.3), st.randoms(),
)  # fmt: skip
def test_nor_in_one_more_window_of_a_bet_that_several_share(
    evidence: Evidence, before: list[tuple[int, int]], n: int, m: int, stable: float,
    better: float, tolerance: float, chance: random.Random,
) -> None:  # fmt: skip
    """Whatever was seen in the windows before it: so the watch may stop after any window."""
    candidate = min(1.0, stable + tolerance) * better
    windows = [Window(a, chance.randint(0, a), b, chance.randint(0, b)) for a, b in before]
    mean = sum(
        chance_of(n, bad, candidate)
        * chance_of(m, other, stable)
        * exp(capital([*windows, Window(n, bad, m, other)], evidence, tolerance))
        for bad in range(n + 1)
        for other in range(m + 1)
    )
    assert mean <= exp(capital(windows, evidence, tolerance)) * (1 + 1e-9)


def test_windows_share_a_bet_if_their_ratios_are_close() -> None:
    windows = [Window(10, 1, 90, 2)] * 100 + [Window(50, 0, 50, 1)] * 100 + [Window(5, 5, 0, 0)]
    found = [*bets(windows)]
    assert [end for end, _ in found[:30]] == [*range(1, 31)]
    assert [end for end, _ in found[30:]] == [37, 46, 57, 71, 88, 100, 125, 156, 195, 201]
    assert [bet.answers for _, bet in found[-2:]] == [39 * 50, 5 * 50], "none of no stable"
    assert found[38:] == [*bets(windows, 195 - 39)]
    assert found[33:] == [*bets(windows, 57)], "goes on where it stopped"
    alone = [*bets([Window(9, 1, 0, 0)] * 100, alone=True)]
    assert sum(bet.answers for _, bet in alone) == 900


def test_ten_thousand_windows_say_the_same_in_few_bets() -> None:
    for share, verdict in ((0.01, "no worse"), (0.03, "worse")):
        windows = [Window(100, int(100 * share * n) - int(100 * share * (n - 1)), 100, 1)
                   for n in range(10_000)]  # fmt: skip
        evidence, found = Evidence(), [*bets(windows)]
        for _, bet in found:
            evidence = evidence.after(bet, 0.005)
        assert len(found) < 100
        decided = judge([evidence], answers=10**6, at_least=0, false_alarms=0.01)
        assert decided.verdict == verdict


def test_a_candidate_that_always_fails_is_caught_in_few_answers() -> None:
    evidence = Evidence()
    for answers in range(1, 9):
        evidence = evidence.after(Window(1, 1, 9, 0), 0.005)
        if judge([evidence], answers=answers, at_least=0, false_alarms=0.01).verdict == "worse":
            break
    assert answers <= 4


def test_an_hour_in_which_stable_fails_costs_no_more_than_that_hour() -> None:
    evidence = Evidence()
    for _ in range(60):
        evidence = evidence.after(Window(100, 0, 900, 450), 0.005)
    assert evidence.capital > -6
    for _ in range(10):
        evidence = evidence.after(Window(100, 50, 900, 0), 0.005)
    assert judge([evidence], answers=1000, at_least=0, false_alarms=0.01).verdict == "worse"


def test_windows_without_answers_change_nothing() -> None:
    evidence = Evidence().after(Window(10, 1, 90, 1), 0.005)
    for window in (Window(0, 0, 90, 3), Window(10, 10, 0, 0), Window(0, 0, 0, 0)):
        assert evidence.after(window, 0.005).capital == pytest.approx(evidence.capital, abs=1e-12)


def test_too_few_answers_are_unclear_and_say_how_many_are_missing() -> None:
    found = judge([Evidence()], answers=150, at_least=200, false_alarms=0.01)
    assert (found.verdict, found.missing, found.bar) == ("unclear", 50, 100)
    assert judge([Evidence()], answers=200, at_least=200, false_alarms=0.01).verdict == "no worse"


def test_evidence_half_way_to_the_bar_is_unclear() -> None:
    evidence = Evidence()
    while evidence.capital < 3:
        evidence = evidence.after(Window(1, 1, 1, 0), 0.005)
    assert judge([evidence], answers=999, at_least=0, false_alarms=0.01).verdict == "unclear"


def test_much_evidence_does_not_overflow() -> None:
    evidence = Evidence()
    for _ in range(200):
        evidence = evidence.after(Window(1000, 1000, 9000, 0), 0.005)
    assert (
        judge([evidence, Evidence()], answers=1, at_least=0, false_alarms=0.01).verdict == "worse"
    )


def test_simulated_good_releases_stay_and_bad_ones_go() -> None:
    for kind in simulate.GOOD:
        cell = simulate.simulate(1, "bursty", 1_000, 0.01, kind, 60)
        assert sum(cell.caught["Shipway"]) <= 2
    cell = simulate.simulate(1, "steady", 1_000, 0.001, "10 %", 60)
    assert sum(cell.caught["Shipway"]) >= 58
