"""What a service answered to its users, from Cloud Monitoring.

One metric says all: `run.googleapis.com/request_latencies` has, for each revision and class of
status, the number of answers in each range of latencies. Cloud Run writes a point a minute, which
is visible up to three minutes later.
Source: https://docs.cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-run
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

from scripts.cloud import answers
from scripts.cloud.google import Google
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed
from scripts.release.watch import Point

_METRIC = "run.googleapis.com/request_latencies"
_LARGEST_PAGE = 100_000  # points
_MOST_PAGES = 20
_MOST_ANSWERS = 10**12  # in one bucket: more cannot be true
_MOST_BUCKETS = 1000


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
        Failed: the answer has numbers that cannot be true, a form that is not known, or no end.
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
    for _ in range(_MOST_PAGES):
        page = google.get("monitoring", path, answers.ListedTimeSeries, **query)
        for series in page.get("timeSeries") or []:
            try:
                found += _of(series)
            except (LookupError, TypeError, ValueError, ArithmeticError) as error:
                raise Failed(
                    "Cloud Monitoring's numbers cannot be read:"
                    f" {type(error).__name__}: {str(error)[:200]}"
                ) from None
        if not page.get("nextPageToken"):
            return found
        query["pageToken"] = page["nextPageToken"]
    raise Failed(f"Cloud Monitoring's answer does not end after {_MOST_PAGES} pages")


def _of(series: dict[str, Any]) -> Iterator[Point]:
    """Yield the points of one series."""
    revision = series["resource"]["labels"]["revision_name"]
    is_error = series["metric"]["labels"]["response_code_class"] == "5xx"
    for point in series.get("points") or []:
        interval, spread = point["interval"], point["value"]["distributionValue"]
        counts = [int(count) for count in spread.get("bucketCounts") or []]
        total = int(spread.get("count") or 0)
        # Trailing buckets that are empty may be left out, and nothing else.
        if sum(counts) != total or not 0 <= total <= _MOST_ANSWERS:
            raise ValueError(f"{sum(counts)} answers in buckets, of {total}")
        ranges = _ranges(json.dumps(spread["bucketOptions"])) if total else ()
        start, end = (_seconds(interval[name]) for name in ("startTime", "endTime"))
        if end < start:
            raise ValueError(f"a point ends before it begins: {interval}")
        yield Point(
            revision=revision,
            start=start,
            end=end,
            is_error=is_error,
            latencies={ranges[number]: count for number, count in enumerate(counts) if count},
        )


@lru_cache(maxsize=8)
def _ranges(options: str) -> tuple[tuple[float, float], ...]:
    """Return the bounds of each bucket, in milliseconds.

    Source: https://docs.cloud.google.com/monitoring/api/ref_v3/rest/v3/TypedValue#BucketOptions

    Args:
        options: the BucketOptions, as JSON.
    """
    read = json.loads(options)
    if growing := read.get("exponentialBuckets"):
        count, growth, scale = (
            growing[name] for name in ("numFiniteBuckets", "growthFactor", "scale")
        )
        if not 0 < int(count) <= _MOST_BUCKETS:
            raise ValueError(f"{count} buckets")
        bounds = [scale * growth**power for power in range(int(count) + 1)]
    elif read.get("explicitBuckets"):
        bounds = read["explicitBuckets"]["bounds"]
    else:
        raise ValueError(f"buckets in an unknown form: {sorted(read)}")
    edges = [0.0, *bounds, math.inf]
    if any(not low < high for low, high in pairwise(edges[1:])) or not edges[1] >= 0:
        raise ValueError("buckets that do not grow")
    return tuple(pairwise(edges))


def _seconds(moment: str) -> float:
    found = datetime.fromisoformat(moment)
    if found.tzinfo is None:
        raise ValueError(f"a time without a time zone: {moment}")
    return found.timestamp()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
