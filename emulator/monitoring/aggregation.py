"""Aligns and reduces time series.

Source: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alertPolicies#Aggregation
(aligners and reducers). The last period ends where the interval ends.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from emulator.errors import invalid
from emulator.monitoring.distribution import Distribution
from emulator.monitoring.models import Metrics, Series, Slot

COUNT, LATENCIES = "run.googleapis.com/request_count", "run.googleapis.com/request_latencies"
Value = int | float | Distribution
Labels = dict[str, str]

_PERCENTILES = {"99": 99.0, "95": 95.0, "50": 50.0, "05": 5.0}
_SHORTEST = 60.0


class Aggregation(NamedTuple):
    """How points are combined. `period` is in seconds; `group_by` names labels of a Series."""

    aligner: str
    reducer: str
    period: float
    group_by: tuple[str, ...]


class Line(NamedTuple):
    """A time series of an answer: its points by the start and end of their period."""

    labels: Labels
    points: dict[tuple[float, float], Value]
    is_delta: bool


def lines(
    metrics: Metrics,
    found: Iterable[Series],
    metric: str,
    start: float,
    end: float,
    how: Aggregation,
) -> list[Line]:
    """Return a metric's series between two moments, aligned and reduced, without empty ones.

    Raises:
        ApiError: INVALID_ARGUMENT if the metric cannot be aligned or reduced that way.
    """
    align = _aligner(metric, how)
    made = []
    for series in found:
        periods: defaultdict[tuple[float, float], Distribution] = defaultdict(Distribution)
        for slot in metrics.slots(series, start, end):
            periods[_period(slot, start, end, how)].merge(slot.latencies)
        points = {period: align(periods[period]) for period in periods}
        if points:
            is_delta = how.aligner in ("ALIGN_NONE", "ALIGN_DELTA", "ALIGN_SUM")
            made.append(Line(dict(series.labels), points, is_delta))
    return made if how.reducer == "REDUCE_NONE" else _reduced(made, how)


def _period(slot: Slot, start: float, end: float, how: Aggregation) -> tuple[float, float]:
    if how.aligner == "ALIGN_NONE":
        return slot.start, slot.start + slot.width
    # A slot exactly one period before the end belongs to the period before.
    number = max(0, math.ceil((end - max(slot.start, start)) / how.period) - 1)
    return end - (number + 1) * how.period, end - number * how.period


def _aligner(metric: str, how: Aggregation) -> Callable[[Distribution], Value]:
    name = how.aligner
    if name != "ALIGN_NONE" and how.period < _SHORTEST:
        raise invalid("must be at least 60 seconds", "aggregation.alignmentPeriod")
    if name == "ALIGN_NONE" and how.reducer != "REDUCE_NONE":
        raise invalid("must be set with a cross-series reducer", "aggregation.perSeriesAligner")
    kind, _, percent = name.rpartition("_")
    if metric == LATENCIES and kind == "ALIGN_PERCENTILE" and percent in _PERCENTILES:
        return lambda found: found.percentile(_PERCENTILES[percent])
    if name in ("ALIGN_NONE", "ALIGN_DELTA", "ALIGN_SUM"):
        return (lambda found: found) if metric == LATENCIES else (lambda found: found.count)
    if metric == COUNT and name == "ALIGN_RATE":
        return lambda found: found.count / how.period
    raise invalid(f"{name} cannot be used with {metric}", "aggregation.perSeriesAligner")


def _reduced(made: list[Line], how: Aggregation) -> list[Line]:
    groups: defaultdict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in made:
        groups[tuple(line.labels[name] for name in how.group_by)].append(line)
    reduced = []
    for group in groups.values():
        values: defaultdict[tuple[float, float], list[Value]] = defaultdict(list)
        for line in group:
            for period, value in line.points.items():
                values[period].append(value)
        # The project is kept with any grouping.
        kept = ("resource.project_id", *how.group_by)
        labels = {name: group[0].labels[name] for name in kept}
        points = {period: _reduce(how.reducer, several) for period, several in values.items()}
        reduced.append(Line(labels, points, group[0].is_delta and how.reducer == "REDUCE_SUM"))
    return reduced


def _reduce(reducer: str, values: Sequence[Value]) -> Value:
    kind, _, percent = reducer.rpartition("_")
    distributions = [value for value in values if isinstance(value, Distribution)]
    if reducer == "REDUCE_COUNT":
        return len(values)
    if distributions:
        whole = Distribution()
        for distribution in distributions:
            whole.merge(distribution)
        if reducer == "REDUCE_SUM":
            return whole
        if kind == "REDUCE_PERCENTILE" and percent in _PERCENTILES:
            return whole.percentile(_PERCENTILES[percent])
    else:
        numbers = [value for value in values if not isinstance(value, Distribution)]
        functions: dict[str, Callable[[list[Any]], float]] = {
            "REDUCE_SUM": sum,
            "REDUCE_MEAN": lambda several: sum(several) / len(several),
            "REDUCE_MIN": min,
            "REDUCE_MAX": max,
        }
        if reducer in functions:
            return functions[reducer](numbers)
    raise invalid(f"{reducer} cannot be used with these values", "aggregation.crossSeriesReducer")
