"""Reading many services stays below the quota of reads."""

from __future__ import annotations

from bisect import bisect_left

import pytest

from scripts.several.reads import Pace


@pytest.mark.parametrize("each", [0.0, 0.01, 0.5])
def test_no_minute_has_more_than_600_requests(each: float) -> None:
    """However fast they are answered; the first 450 wait for nothing."""
    pace, now = Pace(), 0.0
    sent: list[float] = []
    waited = 0.0
    for number in range(2_000):
        pause = pace.pause(1, now)
        waited += pause
        assert number >= 450 or pause < 1e-6
        now += pause
        sent.append(now)
        now += each
    assert all(bisect_left(sent, one + 60 - 1e-6) - place <= 600 for place, one in enumerate(sent))
    assert each >= 0.4 or waited
