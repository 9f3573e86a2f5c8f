"""The wire format of timeSeries.list.

Source: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.monitoring import aggregation, filters
from emulator.monitoring.aggregation import Aggregation, Line, Value
from emulator.monitoring.distribution import Distribution
from emulator.monitoring.models import Metrics
from emulator.wire import page_size

_KNOWN = {
    *("filter", "interval.startTime", "interval.endTime", "view", "pageSize", "pageToken"),
    *("aggregation.alignmentPeriod", "aggregation.perSeriesAligner"),
    *("aggregation.crossSeriesReducer", "aggregation.groupByFields"),
}
_COMMON = {"alt", "key", "prettyPrint", "quotaUser", "fields", "$alt", "$.xgafv"}
_LARGEST_PAGE = 100_000  # points


class Responses:
    """The handlers of Cloud Monitoring's API. `refresh()` completes the counts before each read."""

    def __init__(self, metrics: Metrics, refresh: Callable[[], None]) -> None:
        self._metrics = metrics
        self._refresh = refresh

    async def list_time_series(self, request: web.Request) -> web.Response:
        """`GET /v3/projects/PROJECT/timeSeries`."""
        query = request.query
        for unknown in query.keys() - _KNOWN - _COMMON:
            raise invalid(f'Unknown name "{unknown}": Cannot bind query parameter.', unknown)
        wanted = filters.parse(query.get("filter", ""))
        if wanted.metric not in (aggregation.COUNT, aggregation.LATENCIES):
            message = f'Cannot find metric(s) that match type = "{wanted.metric}".'
            raise ApiError("NOT_FOUND", message)
        end = _moment(query, "interval.endTime")
        start = _moment(query, "interval.startTime") if "interval.startTime" in query else end
        if start > end:
            raise invalid("The start time must not be later than the end time.", "interval")
        self._refresh()
        project = request.match_info["project"]
        found = [s for s in self._metrics.series(project) if wanted.matches(s.labels)]
        lines = aggregation.lines(
            self._metrics, found, wanted.metric, start, end, _aggregation(query)
        )
        with_points = query.get("view", "FULL") == "FULL"
        lines, token = _page(lines, query, with_points=with_points)
        answer: dict[str, Any] = {}
        if lines:
            documents = [_document(wanted.metric, line, with_points=with_points) for line in lines]
            answer["timeSeries"] = documents
        if token:
            answer["nextPageToken"] = token
        return web.json_response(answer)


def _aggregation(query: MultiMapping[str]) -> Aggregation:
    name = "aggregation.alignmentPeriod"
    try:
        period = clock.seconds(query.get(name, "0s"))
    except ValueError:
        raise invalid("Illegal duration format; duration must end with 's'", name) from None
    return Aggregation(
        aligner=query.get("aggregation.perSeriesAligner", "ALIGN_NONE"),
        reducer=query.get("aggregation.crossSeriesReducer", "REDUCE_NONE"),
        period=period,
        group_by=tuple(
            filters.label(field) for field in query.getall("aggregation.groupByFields", ())
        ),
    )


def _moment(query: MultiMapping[str], name: str) -> float:
    try:
        return clock.moment(query.get(name, "")).timestamp()
    except ValueError:
        raise invalid(f"Field {name} had an invalid value.", name) from None


def _page(
    lines: list[Line], query: MultiMapping[str], *, with_points: bool
) -> tuple[list[Line], str]:
    """Return the whole series that fit a page of `pageSize` points (at least one), and a token."""
    refusal = "The page size or token is not valid."
    left = min(page_size(query.get("pageSize"), _LARGEST_PAGE, refusal=refusal), _LARGEST_PAGE)
    start = page_size(query.get("pageToken"), 0, refusal=refusal)
    for number, line in enumerate(lines[start:], start):
        left -= len(line.points) if with_points else 1
        if left < 0 and number > start:
            return lines[start:number], str(number)
    return lines[start:], ""


def _document(metric: str, line: Line, *, with_points: bool) -> dict[str, Any]:
    labels: dict[str, dict[str, str]] = {"metric": {}, "resource": {}}
    for field, value in line.labels.items():
        kind, _, name = field.partition(".")
        labels[kind][name] = value
    kinds = {int: "INT64", float: "DOUBLE", Distribution: "DISTRIBUTION"}
    document: dict[str, Any] = {
        "metric": {"type": metric, "labels": labels["metric"]},
        "resource": {"type": filters.RESOURCE, "labels": labels["resource"]},
        "metricKind": "DELTA" if line.is_delta else "GAUGE",
        "valueType": kinds[type(next(iter(line.points.values())))],
    }
    if with_points:
        # The most recent points come first.
        document["points"] = [
            {
                "interval": {"startTime": clock.at(start), "endTime": clock.at(end)},
                "value": _value(line.points[start, end]),
            }
            for start, end in sorted(line.points, reverse=True)
        ]
    return document


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, Distribution):
        return {"distributionValue": value.document()}
    return {"int64Value": str(value)} if isinstance(value, int) else {"doubleValue": value}
