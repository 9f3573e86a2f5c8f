"""Cloud Monitoring's timeSeries, read with plain HTTP after real traffic through the router."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from emulator.monitoring.aggregation import Aggregation, lines
from emulator.monitoring.models import Metrics
from emulator.names import Key
from emulator.served import Served
from tests.emulator.cloud_run_help import CloudRun, service, tag_url

COUNT, LATENCIES = "run.googleapis.com/request_count", "run.googleapis.com/request_latencies"
# Longer than any machine takes from the first request to the last query.
PERIOD = 3600
DELTA = {"aggregation.alignmentPeriod": f"{PERIOD}s", "aggregation.perSeriesAligner": "ALIGN_DELTA"}
GOOD, BAD = 23, 7
REVISION = Key("acme", "us-central1", "own-1")


def answered(moment: float, seconds: float) -> Served:
    """Return a request that an instance answered."""
    return Served(
        moment, seconds, "GET", "own", "/", (1, 1), 200, None, 9, None, None, None, "trace"
    )


@pytest.fixture(scope="module")
def began(cloud_run, image) -> datetime:
    """Send requests to two revisions, one of which fails some; return the time before them."""
    began = datetime.now(UTC)
    cloud_run.ready(service("metered", image, "metered-a"))
    traffic = [
        {"revisionName": "metered-a", "percent": 100},
        {"revisionName": "metered-b", "percent": 0, "tag": "next"},
    ]
    ready = cloud_run.ready(service("metered", image, "metered-b", traffic))
    url, tagged = ready["status"]["url"], tag_url(ready, "next")

    def ask(address: str) -> int:
        return requests.get(address, allow_redirects=False, timeout=60).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, [url] * GOOD)) == {200}
        assert set(pool.map(ask, [f"{tagged}/redirect"] * GOOD)) == {302}
        assert set(pool.map(ask, [f"{tagged}/drop"] * BAD)) == {503}
    return began


def ask(cloud_run: CloudRun, metric: str, began: datetime, more: str = "", **query: Any):
    """Query a metric of the service from the first request until now."""
    base = f'metric.type="{metric}" AND resource.labels.service_name="metered"'
    params = {
        "filter": f'resource.type = "cloud_run_revision" AND {base}{more}',
        "interval.startTime": began.isoformat(),
        "interval.endTime": datetime.now(UTC).isoformat(),
        **query,
    }
    params = {name: value for name, value in params.items() if value is not None}
    return cloud_run.http.get(f"{cloud_run.url}/v3/projects/acme/timeSeries", params=params)


def series(cloud_run: CloudRun, metric: str, began: datetime, more: str = "", **query: Any):
    answer = ask(cloud_run, metric, began, more, **query)
    assert answer.status_code == 200, answer.text
    return answer.json().get("timeSeries", [])


def test_requests_by_revision_and_response_class(cloud_run, began):
    found = series(cloud_run, COUNT, began, **DELTA)
    counts = {
        (s["resource"]["labels"]["revision_name"], s["metric"]["labels"]["response_code"]): [
            point["value"]["int64Value"] for point in s["points"]
        ]
        for s in found
    }
    assert counts == {
        ("metered-a", "200"): [str(GOOD)],
        ("metered-b", "302"): [str(GOOD)],
        ("metered-b", "503"): [str(BAD)],
    }
    (failed,) = [s for s in found if s["metric"]["labels"]["response_code"] == "503"]
    (point,) = failed.pop("points")
    span = {name: datetime.fromisoformat(at) for name, at in point["interval"].items()}
    assert span["endTime"] - span["startTime"] == timedelta(seconds=PERIOD)
    assert failed == {
        "metric": {
            "type": COUNT,
            "labels": {"response_code": "503", "response_code_class": "5xx"},
        },
        "resource": {
            "type": "cloud_run_revision",
            "labels": {
                "project_id": "acme",
                "location": "us-central1",
                "service_name": "metered",
                "revision_name": "metered-b",
                "configuration_name": "metered",
            },
        },
        "metricKind": "DELTA",
        "valueType": "INT64",
    }


@pytest.mark.parametrize(
    ("more", "total"),
    [
        (' AND resource.labels.revision_name="metered-b"', GOOD + BAD),
        (' AND resource.label.revision_name != "metered-b"', GOOD),
        (' AND metric.labels.response_code_class="5xx"', BAD),
        (' AND metric.label.response_code_class=one_of("5xx", "3xx")', GOOD + BAD),
        (' AND resource.labels.revision_name=starts_with("metered-")', 2 * GOOD + BAD),
        (' AND resource.labels.location="europe-west1"', None),
        (' AND resource.labels.revision_name="other"', None),
    ],
)
def test_a_filter_selects_the_requests_of_a_sum(cloud_run, began, more, total):
    reduced = {**DELTA, "aggregation.crossSeriesReducer": "REDUCE_SUM"}
    found = series(cloud_run, COUNT, began, more, **reduced)
    values = [p["value"]["int64Value"] for s in found for p in s["points"]]
    assert values == ([] if total is None else [str(total)])


def test_the_share_of_errors_by_revision(cloud_run, began):
    """The query of a rollout decision: one sum for each revision and response class."""
    fields = ["resource.labels.revision_name", "metric.labels.response_code_class"]
    query = {
        **DELTA,
        "aggregation.crossSeriesReducer": "REDUCE_SUM",
        "aggregation.groupByFields": fields,
    }
    found = series(cloud_run, COUNT, began, **query)
    counts = {
        (
            s["resource"]["labels"]["revision_name"],
            s["metric"]["labels"]["response_code_class"],
        ): int(s["points"][0]["value"]["int64Value"])
        for s in found
    }
    assert counts == {
        ("metered-a", "2xx"): GOOD,
        ("metered-b", "3xx"): GOOD,
        ("metered-b", "5xx"): BAD,
    }


def test_rate(cloud_run, began):
    query = {**DELTA, "aggregation.perSeriesAligner": "ALIGN_RATE"}
    (found,) = series(cloud_run, COUNT, began, ' AND metric.labels.response_code="503"', **query)
    assert (found["metricKind"], found["valueType"]) == ("GAUGE", "DOUBLE")
    assert found["points"][0]["value"]["doubleValue"] == pytest.approx(BAD / PERIOD)


def test_latencies_as_a_distribution(cloud_run, began):
    more = ' AND metric.labels.response_code="200"'
    (found,) = series(cloud_run, LATENCIES, began, more, **DELTA)
    assert (found["metricKind"], found["valueType"]) == ("DELTA", "DISTRIBUTION")
    value = found["points"][0]["value"]["distributionValue"]
    assert value["count"] == str(GOOD) == str(sum(map(int, value["bucketCounts"])))
    options = value["bucketOptions"]["exponentialBuckets"]
    assert options == {"numFiniteBuckets": 66, "growthFactor": 1.4, "scale": 1.0}
    # The mean lies within the buckets that are not empty.
    filled = [n for n, count in enumerate(value["bucketCounts"]) if count != "0"]
    low = 0 if filled[0] == 0 else 1.4 ** (filled[0] - 1)
    assert low <= value["mean"] < 1.4 ** filled[-1]
    assert value["sumOfSquaredDeviation"] >= 0


def test_a_latency_is_counted_in_its_bucket(cloud_run, image):
    began = datetime.now(UTC)
    url = cloud_run.ready(service("metered-once", image))["status"]["url"]
    requests.get(url, timeout=60)
    mine = f'metric.type="{LATENCIES}" resource.labels.service_name="metered-once"'
    (found,) = series(cloud_run, LATENCIES, began, filter=mine, **DELTA)
    value = found["points"][0]["value"]["distributionValue"]
    counts = value["bucketCounts"]
    assert counts == ["0"] * (len(counts) - 1) + ["1"]
    # The first bucket ends at 1 ms, each other one at 1.4 times the end of the previous one.
    low = 1.4 ** (len(counts) - 2) if len(counts) > 1 else 0
    assert low <= value["mean"] < 1.4 ** (len(counts) - 1)


def test_percentiles(cloud_run, began):
    more = ' AND metric.labels.response_code="200"'
    for how in (
        {"aggregation.perSeriesAligner": "ALIGN_PERCENTILE_99"},
        {"aggregation.crossSeriesReducer": "REDUCE_PERCENTILE_99"},
    ):
        (found,) = series(cloud_run, LATENCIES, began, more, **DELTA | how)
        assert (found["metricKind"], found["valueType"]) == ("GAUGE", "DOUBLE")
        (point,) = found["points"]
        assert float(point["value"]["doubleValue"]) > 0


def test_one_slow_answer_among_fast_ones_does_not_change_the_median() -> None:
    now = 1_800_000_000.0
    metrics = Metrics(clock=lambda: now)
    for number in range(21):
        metrics.requests(REVISION, "slow", [answered(now - 60, 0.9 if number == 9 else 0.05)])

    def milliseconds(aligner: str, reducer: str = "REDUCE_NONE") -> float:
        how = Aggregation(aligner, reducer, 120, ())
        (found,) = lines(metrics, metrics.series("acme"), LATENCIES, now - 120, now, how)
        (value,) = found.points.values()
        return value

    for percent, low, high in (("50", 40, 70), ("99", 600, 1300)):
        assert low < milliseconds(f"ALIGN_PERCENTILE_{percent}") < high
        assert low < milliseconds("ALIGN_DELTA", f"REDUCE_PERCENTILE_{percent}") < high


def test_only_requests_in_the_interval_are_counted(cloud_run, began):
    early = {"interval.endTime": (began - timedelta(seconds=1)).isoformat()}
    start = {"interval.startTime": (began - timedelta(hours=1)).isoformat()}
    assert series(cloud_run, COUNT, began, **DELTA, **start, **early) == []
    late = {"interval.startTime": (datetime.now(UTC) + timedelta(seconds=2)).isoformat()}
    late["interval.endTime"] = (datetime.now(UTC) + timedelta(seconds=62)).isoformat()
    assert series(cloud_run, COUNT, began, **DELTA, **late) == []


def test_no_request_is_counted_in_two_periods(cloud_run, began):
    end = began + timedelta(minutes=5, seconds=17)
    query = {**DELTA, "interval.endTime": end.isoformat()}
    query["interval.startTime"] = (began - timedelta(minutes=5)).isoformat()
    (found,) = series(cloud_run, COUNT, began, ' AND metric.labels.response_code="503"', **query)
    assert sum(int(p["value"]["int64Value"]) for p in found["points"]) == BAD
    ends = [datetime.fromisoformat(p["interval"]["endTime"]) for p in found["points"]]
    assert ends == sorted(ends, reverse=True)
    assert all((end - at).total_seconds() % 60 == 0 for at in ends)


def test_raw_points_headers_and_pages(cloud_run, began):
    raw = series(cloud_run, COUNT, began)
    assert sum(int(p["value"]["int64Value"]) for s in raw for p in s["points"]) == 2 * GOOD + BAD
    headers = series(cloud_run, COUNT, began, view="HEADERS")
    assert headers == [{k: v for k, v in s.items() if k != "points"} for s in raw]
    first = ask(cloud_run, COUNT, began, **DELTA, pageSize=2).json()
    token = first["nextPageToken"]
    second = ask(cloud_run, COUNT, began, **DELTA, pageSize=2, pageToken=token).json()
    assert (len(first["timeSeries"]), len(second["timeSeries"])) == (2, 1)
    assert "nextPageToken" not in second


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ({"filter": 'resource.type="cloud_run_revision"'}, "single metric type"),
        ({"filter": f'metric.type="{COUNT}" AND metric.labels.color="red"'}, "color"),
        ({"filter": f'metric.type="{COUNT}" OR resource.type="x"'}, "OR"),
        ({"interval.endTime": "now"}, "interval.endTime"),
        ({"interval.endTime": None}, "interval.endTime"),
        ({"interval.endTime": "2020-01-01T00:00:00Z"}, "start time"),
        ({**DELTA, "aggregation.alignmentPeriod": "5s"}, "at least 60 seconds"),
        ({**DELTA, "aggregation.alignmentPeriod": "60"}, "duration"),
        ({**DELTA, "aggregation.perSeriesAligner": "ALIGN_PERCENTILE_95"}, "PERCENTILE"),
        ({**DELTA, "aggregation.crossSeriesReducer": "REDUCE_STDDEV"}, "STDDEV"),
        ({"aggregation.crossSeriesReducer": "REDUCE_SUM"}, "perSeriesAligner"),
        ({"color": "red"}, "color"),
    ],
)
def test_an_unsupported_query_is_refused_and_the_part_is_named(cloud_run, began, query, part):
    refused = ask(cloud_run, COUNT, began, **query)
    assert refused.status_code == 400, refused.text
    assert part in refused.json()["error"]["message"]


def test_an_unknown_metric_is_not_found(cloud_run, began):
    missing = ask(cloud_run, "run.googleapis.com/container/cpu", began)
    assert (missing.status_code, missing.json()["error"]["status"]) == (404, "NOT_FOUND")


def test_numbers_come_as_late_as_at_google() -> None:
    """On a clock of its own: a whole minute at a time, and none before its delay is over."""
    now = 1_800_000_000.0  # a whole minute
    clock = [now]
    metrics = Metrics(240, lambda: clock[0])
    for second in (10, 50, 70):
        metrics.requests(REVISION, "late", [answered(now + second, 0.2)])
    (found,) = metrics.series("acme")

    def visible() -> list[tuple[float, int]]:
        slots = metrics.slots(found, now, now + 600)
        return [(slot.start - now, slot.latencies.count) for slot in slots if slot.width == 60]

    for after, expected in (
        (0, []), (299, []), (300, [(0, 2)]), (359, [(0, 2)]), (360, [(0, 2), (60, 1)]),
    ):  # fmt: skip
        clock[0] = now + after
        assert visible() == expected, after
