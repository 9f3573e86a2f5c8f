"""The ledger of one call: every write that it sent to Google or the registry, and how it ended.

What a verb may say at its end depends on it: "nothing was sent" is true only while no write may
have been done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec


class Write(msgspec.Struct, kw_only=True):
    """One write that was sent.

    Attributes:
        what: what it writes, in human-readable form: "service app in us-central1".
        request: the request: "PUT run.googleapis.com/v1/…".
        operation: the ID that marks a write to a service; "" for other writes.
        outcome: "done": it was seen to be done. "refused": it was not done. "unknown": its answer
            was lost, or has not come yet.
    """

    what: str
    request: str
    operation: str = ""
    outcome: Literal["done", "refused", "unknown"] = "unknown"


def may_have_written(writes: Iterable[Write]) -> bool:
    """Return whether anything was written, or may have been."""
    return any(write.outcome != "refused" for write in writes)
