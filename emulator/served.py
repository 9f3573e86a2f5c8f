"""A request that a revision answered: the router makes the record, logs and metrics store it."""

from __future__ import annotations

import msgspec


class Served(msgspec.Struct, array_like=True, gc=False):
    """A request that a revision answered or should have answered.

    Attributes:
        received: When it came, in seconds since the epoch.
        seconds: How long the complete answer took.
        request_size: The size of the body in bytes; None if the request does not say.
        response_size: The size of the answer in bytes, with headers.
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
