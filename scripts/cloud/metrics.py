"""What a service answered to its users, from Cloud Monitoring.

One metric says all: `run.googleapis.com/request_latencies` has, for each revision and class of
status, the number of answers in each range of latencies. Cloud Run writes a point a minute, which
is visible up to three minutes later.
Source: https://docs.cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-run
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from scripts.cloud import answers
from scripts.cloud.google import Google
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed
from scripts.release.watch import Point

_METRIC = "run.googleapis.com/request_latencies"
_LARGEST_PAGE = 100_000  # points


def points(
    google: Google, pipeline: Pipeline, region: str, start: float, end: float
) -> list[Point]:
    """Read what a service's revisions answered in one region.

    Args:
        google: the APIs as the environment reaches them.
        pipeline: the service's files.
        region: where.
        start: in seconds since the epoch.
        end: likewise.

    Raises:
        ApiError: Cloud Monitoring refuses.
        Failed: the answer has latencies in a form that is not known.
    """
    conditions = [
        f'metric.type="{_METRIC}"',
        'resource.type="cloud_run_revision"',
        f'resource.labels.service_name="{pipeline.service}"',
        f'resource.labels.location="{region}"',
    ]
    query: dict[str, str | int | list[str]] = {
        "filter": " AND ".join(conditions),
        "interval.startTime": _moment(start),
        "interval.endTime": _moment(end),
        "pageSize": _LARGEST_PAGE,
    }
    path = f"/v3/projects/{pipeline.environment.project}/timeSeries"
    found: list[Point] = []
    while True:
        page = google.get("monitoring", path, answers.ListedTimeSeries, **query)
        for series in page.get("timeSeries") or []:
            found += _of(series)
        if not page.get("nextPageToken"):
            return found
        query["pageToken"] = page["nextPageToken"]


def _of(series: dict[str, Any]) -> Iterator[Point]:
    """Yield the points of one series."""
    revision = series["resource"]["labels"].get("revision_name", "")
    is_error = series["metric"]["labels"].get("response_code_class") == "5xx"
    for point in series.get("points") or []:
        interval, spread = point["interval"], point["value"]["distributionValue"]
        yield Point(
            revision=revision,
            start=datetime.fromisoformat(interval["startTime"]).timestamp(),
            end=datetime.fromisoformat(interval["endTime"]).timestamp(),
            is_error=is_error,
            latencies={
                _range(spread["bucketOptions"], number): int(count)
                for number, count in enumerate(spread.get("bucketCounts") or [])
                if int(count)
            },
        )


def _range(options: dict[str, Any], number: int) -> tuple[float, float]:
    """Return the bounds of a bucket, in milliseconds.

    Source: https://docs.cloud.google.com/monitoring/api/ref_v3/rest/v3/TypedValue#BucketOptions
    """
    if growing := options.get("exponentialBuckets"):
        count = int(growing["numFiniteBuckets"]) + 1
        bounds = [growing["scale"] * growing["growthFactor"] ** power for power in range(count)]
    elif options.get("explicitBuckets"):
        bounds = options["explicitBuckets"]["bounds"]
    else:
        raise Failed(f"Cloud Monitoring's latencies are in an unknown form: {sorted(options)}")
    low = bounds[number - 1] if number else 0.0
    return low, bounds[number] if number < len(bounds) else math.inf


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
