"""Times and shares in human-readable form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime


def moment(seconds: float) -> str:
    """Return a time in Unix seconds as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(timestamp: str, at: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was: "5 min ago"."""
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    past = int(((at or datetime.now(UTC)) - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if past >= size:
            return f"{past // size} {unit} ago"
    return f"{max(past, 0)} s ago"


def split(shares: Mapping[str, int]) -> str:
    """Return shares in one line: "app-1a2b3c4 90 %, app-5d6e7f8 10 %"."""
    return ", ".join(f"{name} {shares[name]} %" for name in by_share(shares)) or "nothing"


def by_share(shares: Mapping[str, int], *others: str) -> list[str]:
    """Return the revisions, the largest share first.

    Args:
        shares: revision -> percentage.
        others: more revisions, which may have no share.
    """
    return sorted({*shares, *others}, key=lambda name: (-shares.get(name, 0), name))
