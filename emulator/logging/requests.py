"""Cloud Run's request log: an entry for each request that was sent to a revision.

Source: https://cloud.google.com/run/docs/logging#log-resource, and HttpRequest of
https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry. The severity of each status is
from memory, not documented.

On disk, a batch of requests is one line. Its entries are made when they are read, because most
requests never are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from emulator import clock
from emulator.logging.matching import Entry
from emulator.served import Served


def document(batch: list[Served], batch_id: str) -> bytes:
    """Return the line of a revision's log that holds a batch of requests."""
    stored = {"receiveTimestamp": clock.now(), "insertId": batch_id, "requests": batch}
    return msgspec.json.encode(stored)


def entries(stored: dict[str, Any], project: str) -> Iterator[Entry]:
    """Yield the entries of a stored batch, without the fields that the revision's entries share."""
    for number, values in enumerate(stored["requests"]):
        served = msgspec.convert(values, Served)
        request = {
            "requestMethod": served.method,
            "requestUrl": f"http://{served.host}{served.path}",
            "requestSize": str(served.request_size) if served.request_size else None,
            "status": served.status,
            "responseSize": str(served.response_size),
            "userAgent": served.user_agent,
            "remoteIp": served.remote,
            "referer": served.referer,
            "latency": f"{served.seconds:.6f}s",
            "protocol": f"HTTP/{served.version[0]}.{served.version[1]}",
        }
        entry = {
            "logName": f"projects/{project}/logs/run.googleapis.com%2Frequests",
            "timestamp": clock.at(served.received),
            "receiveTimestamp": stored["receiveTimestamp"],
            "insertId": f"{stored['insertId']}{number:06d}",
            "severity": _severity(served.status),
            "httpRequest": {name: value for name, value in request.items() if value is not None},
        }
        if served.trace:
            entry["trace"] = f"projects/{project}/traces/{served.trace}"
        yield entry


def _severity(status: int) -> str:
    if status >= 500:
        return "ERROR"
    return "WARNING" if status >= 400 else "INFO"
