"""The number of instances of a revision, and the number of requests that each one takes."""

from __future__ import annotations

import math
import re
from typing import Any

from emulator.instances.launch import Bounds

Document = dict[str, Any]

# Source: https://cloud.google.com/run/docs/configuring/max-instances (the default).
_MAXIMUM = 100


def of_revision(annotations: Document) -> Bounds:
    """Return the bounds that a revision's own `annotations` set."""
    return Bounds(
        _number(annotations.get("autoscaling.knative.dev/minScale")) or 0,
        _number(annotations.get("autoscaling.knative.dev/maxScale")) or _MAXIMUM,
    )


def with_share(own: Bounds, annotations: Document, percent: int) -> Bounds:
    """Return the bounds of a revision that gets `percent` of the traffic.

    The service's bounds are divided among its revisions by traffic, and combined with the
    revision's own. Source: the discovery document run.v2, GoogleCloudRunV2ServiceScaling. Cloud
    Run's rounding is not documented; here, shares are rounded up, so that every revision with
    traffic has one.

    Args:
        own: The revision's own bounds.
        annotations: The annotations of the service.
        percent: The revision's share of the traffic.
    """
    least = _number(annotations.get("run.googleapis.com/minScale"))
    most = _number(annotations.get("run.googleapis.com/maxScale"))
    minimum, maximum = own
    if least and percent:
        minimum = max(minimum, math.ceil(least * percent / 100))
    if most and percent:
        maximum = min(maximum, math.ceil(most * percent / 100))
    return Bounds(minimum, maximum)


def concurrency(spec: Document, cpu: float) -> int:
    """Return how many requests one instance takes at a time.

    Source: the discovery document run.v1, RevisionSpec.containerConcurrency (the defaults).
    """
    return spec.get("containerConcurrency") or (80 if cpu >= 1 else 1)


def _number(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and re.fullmatch(r"\d{1,9}", text) else None
