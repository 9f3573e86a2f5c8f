"""The choice of a revision."""

from __future__ import annotations

import collections

import pytest

from emulator.names import Key
from emulator.router.split import Split

A, B, C = (Key("p", "r", name) for name in "abc")


@pytest.mark.parametrize("weights", [(1, 99), (50, 50), (33, 67), (100, 0)])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_shares_are_even_for_a_caller_who_sends_every_nth_request(weights, stride):
    split = Split([(A, weights[0]), (B, weights[1])])
    chosen = [split.choose() for _ in range(1000 * stride)][::stride]
    assert abs(collections.Counter(chosen)[A] / 10 - weights[0]) < 1.5


def test_three_shares_and_none_for_zero():
    split = Split([(A, 20), (B, 0), (C, 80)])
    counts = collections.Counter(split.choose() for _ in range(1000))
    assert set(counts) == {A, C} == set(split.revisions)
    assert abs(counts[A] - 200) < 10
