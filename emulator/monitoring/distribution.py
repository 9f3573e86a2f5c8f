"""A distribution of latencies in exponential buckets.

Source: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/TypedValue#Distribution. Cloud Run's
buckets (66 from 1 ms on, each 1.4 times as wide as the previous one) are from memory: Google's
other request latencies have them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

_FINITE, _GROWTH, _SCALE = 66, 1.4, 1.0
_LOG = math.log(_GROWTH)


class Distribution:
    """The number of values in each bucket, and the sums that give their mean and deviation."""

    __slots__ = ("buckets", "count", "squares", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.squares = 0.0
        self.buckets: defaultdict[int, int] = defaultdict(int)

    def add(self, value: float) -> None:
        """Add one value, in milliseconds."""
        self.count += 1
        self.total += value
        self.squares += value * value
        self.buckets[_bucket(value)] += 1

    def merge(self, other: Distribution) -> None:
        """Add all values of another distribution."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        for bucket, count in other.buckets.items():
            self.buckets[bucket] += count

    def percentile(self, percent: float) -> float:
        """Return a percentile, as if the values of a bucket were spread evenly over it."""
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
        """Return the distribution as a `distributionValue`."""
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
    """Return the bucket of a value. Bucket 0 is below the scale, the last above all finite ones."""
    if value < _SCALE:
        return 0
    return min(1 + int(math.log(value / _SCALE) / _LOG), _FINITE + 1)


def _bounds(bucket: int) -> tuple[float, float]:
    if bucket == 0:
        return 0.0, _SCALE
    low = _SCALE * _GROWTH ** (bucket - 1)
    return low, low if bucket > _FINITE else low * _GROWTH
