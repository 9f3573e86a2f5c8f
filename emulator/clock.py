"""Times, durations and versions, as Google's APIs write them."""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime

_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_last_version = 0


def now() -> str:
    """Return the time in RFC 3339, UTC, with microseconds: `2026-01-31T12:00:00.123456Z`."""
    return rfc3339(datetime.now(UTC))


def rfc3339(moment: datetime) -> str:
    """Return a time with its zone in the form of `now`. Such texts sort like their times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def at(seconds: float) -> str:
    """Return the time so many seconds after the epoch in the form of `now`."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


def moment(text: str) -> datetime:
    """Parse an RFC 3339 text, which must have a zone; raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without a time zone")
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time before the year 1 or after the year 9999") from None


def seconds(duration: str) -> float:
    """Return the seconds of a duration such as `30s` or `1.5s`; raises ValueError."""
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ValueError("a duration that does not end with 's'")
    return float(found[1])


def next_version() -> str:
    """Return a resourceVersion or etag that this process never gave before.

    It is higher than those of earlier processes, provided that the machine's clock was never set
    back. Cloud Run's own is an opaque base64 text of a time, too.
    """
    global _last_version
    _last_version = max(_last_version + 1, time.time_ns() // 1000)
    return base64.urlsafe_b64encode(_last_version.to_bytes(8, "big")).decode()
