"""A request that a revision answered: what the front ends report to logging and monitoring."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from emulator.names import Key


class Served(msgspec.Struct, array_like=True, gc=False):
    """A request that a revision answered, or would have answered.

    Attributes:
        received: When it came, in seconds since the epoch.
        seconds: How long it took until the answer was complete.
        request_size: Bytes of the body; None if the request does not say.
        response_size: Bytes of the answer, with its headers.
    """

    received: float
    seconds: float
    method: str
    host: str
    path: str
    version: tuple[int, int]
    status: int
    request_size: int | None
    response_size: int
    user_agent: str | None
    referer: str | None
    remote: str | None
    trace: str | None


Listener = Callable[[Key, str, list[Served]], None]
"""Takes a revision, the name of its service, and the requests."""
