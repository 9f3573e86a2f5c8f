"""Counts requests by revision and status for each second, in memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from emulator.monitoring.distribution import Distribution
from emulator.names import Key
from emulator.served import Served

# Seconds that each second is kept, seconds that each minute is kept, and the number of slots above
# which older ones are merged.
_FINE, _KEPT, _MANY = 900, 24 * 3600, 2400


class Slot(NamedTuple):
    """The requests that were answered in `width` seconds from `start` (since the epoch)."""

    start: int
    width: int
    latencies: Distribution


class Series:
    """The requests that a revision answered with one status."""

    def __init__(self, revision: Key, service: str, status: int) -> None:
        self.labels = {
            "resource.project_id": revision.project,
            "resource.location": revision.region,
            "resource.service_name": service,
            "resource.revision_name": revision.name,
            "resource.configuration_name": service,
            "metric.response_code": str(status),
            "metric.response_code_class": f"{status // 100}xx",
        }
        self._seconds: defaultdict[int, Distribution] = defaultdict(Distribution)
        self._minutes: defaultdict[int, Distribution] = defaultdict(Distribution)

    def add(self, moment: float, milliseconds: float) -> None:
        """Count a request that was answered at `moment`, in seconds since the epoch."""
        self._seconds[int(moment)].add(milliseconds)
        if len(self._seconds) > _MANY:
            self._compact(int(moment))

    def _compact(self, now: int) -> None:
        for second in [s for s in self._seconds if s < now - _FINE]:
            self._minutes[second // 60 * 60].merge(self._seconds.pop(second))
        for minute in [m for m in self._minutes if m < now - _KEPT]:
            del self._minutes[minute]

    def between(self, start: float, end: float) -> Iterator[Slot]:
        """Yield the slots that overlap the time between two moments."""
        for width, slots in ((60, self._minutes), (1, self._seconds)):
            for at, latencies in slots.items():
                if at + width > start and at < end:
                    yield Slot(at, width, latencies)

    def sampled(self, start: float, end: float) -> Iterator[Slot]:
        """Yield whole minutes that overlap the time between two moments, as Google samples."""
        minutes: defaultdict[int, Distribution] = defaultdict(Distribution)
        for slot in self.between(start - 60, end + 60):
            minutes[slot.start // 60 * 60].merge(slot.latencies)
        for at, latencies in minutes.items():
            if at + 60 > start and at < end:
                yield Slot(at, 60, latencies)


class Metrics:
    """The time series of every revision.

    Args:
        delay: the seconds after which a number can be read. From a minute on, there is one number
            for each whole minute, as Google has it.
        clock: returns the time, in seconds since the epoch.
    """

    def __init__(self, delay: float = 0, clock: Callable[[], float] = time.time) -> None:
        self._delay = delay
        self._clock = clock
        self._series: dict[tuple[Key, int], Series] = {}

    def requests(self, revision: Key, service: str, batch: list[Served]) -> None:
        """Count these requests to a revision."""
        for served in batch:
            series = self._series.get((revision, served.status))
            if series is None:
                series = Series(revision, service, served.status)
                self._series[revision, served.status] = series
            series.add(served.received + served.seconds, served.seconds * 1000)

    def slots(self, series: Series, start: float, end: float) -> Iterator[Slot]:
        """Yield the slots of a series between two moments that can be read by now."""
        visible = self._clock() - self._delay
        sampled = self._delay >= 60
        for slot in (series.sampled if sampled else series.between)(start, end):
            if not self._delay or slot.start + slot.width <= visible:
                yield slot

    def series(self, project: str) -> Iterator[Series]:
        """Yield the series of a project's revisions."""
        return (s for (revision, _), s in self._series.items() if revision.project == project)
