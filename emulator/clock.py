"""Timestamps and versions, as Google's APIs write them."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

_last_version = 0


def now() -> str:
    """The time in RFC 3339, UTC, with microseconds: `2026-01-31T12:00:00.123456Z`."""
    return rfc3339(datetime.now(UTC))


def rfc3339(moment: datetime) -> str:
    """A time with its zone in the form of `now`: texts of times compare like the times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def next_version() -> str:
    """A resourceVersion that this process never gave before (nor one before it, clock willing).

    Cloud Run's own is an opaque base64 text of a time, too.
    """
    global _last_version
    _last_version = max(_last_version + 1, time.time_ns() // 1000)
    return base64.urlsafe_b64encode(_last_version.to_bytes(8, "big")).decode()
