"""Chooses the revision that answers the next request."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from emulator.names import Key

_GOLDEN = 0.618033988749895


class Split:
    """Chooses among revisions by weight.

    Steps of the golden ratio around a circle land in each share evenly: after any number of
    requests the counts are closer to the weights than a random choice would bring them, and a
    client that repeats a pattern of requests does not always reach the same revision.
    """

    def __init__(self, weights: Sequence[tuple[Key, int]]) -> None:
        """`weights` are revisions with their percentages, of which at least one is above zero."""
        self._revisions = [revision for revision, weight in weights if weight > 0]
        self._ends = list(itertools.accumulate(weight for _, weight in weights if weight > 0))
        self._point = random.random()  # noqa: S311 - a starting point, not a secret

    @property
    def revisions(self) -> list[Key]:
        """The revisions that can be chosen."""
        return self._revisions

    def choose(self) -> Key:
        """Return the revision for the next request."""
        if len(self._revisions) == 1:
            return self._revisions[0]
        self._point = (self._point + _GOLDEN) % 1.0
        place = self._point * self._ends[-1]
        for revision, end in zip(self._revisions, self._ends, strict=True):
            if place < end:
                return revision
        return self._revisions[-1]
