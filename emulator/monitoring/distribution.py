"""A distribution of latencies in exponential buckets.

Source: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/TypedValue#Distribution. That Cloud
Run's buckets are 66, each 1.4 times as wide as the one before, from 1 ms on, is recollected: they
are those of Google's other request latencies.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

_FINITE, _GROWTH, _SCALE = 66, 1.4, 1.0
_LOG = math.log(_GROWTH)


class Distribution:
    """Counts of values by bucket, and what their mean and deviation come from."""

    __slots__ = ("buckets", "count", "squares", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.squares = 0.0
        self.buckets: defaultdict[int, int] = defaultdict(int)

    def add(self, value: float) -> None:
        """Take one value, in milliseconds."""
        self.count += 1
        self.total += value
        self.squares += value * value
        self.buckets[_bucket(value)] += 1

    def merge(self, other: Distribution) -> None:
        """Take all values of another one."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        for bucket, count in other.buckets.items():
            self.buckets[bucket] += count

    def percentile(self, percent: float) -> float:
        """The value that `percent` of the values are below, as if they lay evenly in a bucket."""
        rank = self.count * percent / 100
        below = 0
        for bucket in sorted(self.buckets):
            count = self.buckets[bucket]
            if below + count >= rank:
                low, high = _bounds(bucket)
                return low + (high - low) * (rank - below) / count
            below += count
        return 0.0

    def document(self) -> dict[str, Any]:
        """The distribution as a `distributionValue`."""
        mean = self.total / self.count if self.count else 0.0
        buckets = range(max(self.buckets, default=-1) + 1)
        return {
            "count": str(self.count),
            "mean": mean,
            "sumOfSquaredDeviation": max(0.0, self.squares - self.count * mean * mean),
            "bucketOptions": {
                "exponentialBuckets": {
                    "numFiniteBuckets": _FINITE,
                    "growthFactor": _GROWTH,
                    "scale": _SCALE,
                }
            },
            "bucketCounts": [str(self.buckets.get(bucket, 0)) for bucket in buckets],
        }


def _bucket(value: float) -> int:
    """Bucket 0 is below the scale, the last one above all that are finite."""
    if value < _SCALE:
        return 0
    return min(1 + int(math.log(value / _SCALE) / _LOG), _FINITE + 1)


def _bounds(bucket: int) -> tuple[float, float]:
    if bucket == 0:
        return 0.0, _SCALE
    low = _SCALE * _GROWTH ** (bucket - 1)
    return low, low if bucket > _FINITE else low * _GROWTH
