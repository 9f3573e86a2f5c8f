"""Turns a line that a container wrote into the content of a log entry.

Source: https://cloud.google.com/logging/docs/structured-logging (the special fields).
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from emulator import clock
from emulator.fields import is_deep
from emulator.logging.matching import SEVERITIES, Entry

# Special fields of a line of JSON: its name, the entry's field, and the type that it must have.
_SPECIAL = (
    ("logging.googleapis.com/trace", "trace", str),
    ("logging.googleapis.com/trace_sampled", "traceSampled", bool),
    ("logging.googleapis.com/spanId", "spanId", str),
    ("logging.googleapis.com/labels", "labels", dict),
)


def content(text: str) -> Entry:
    """Return the fields of an entry that a line sets: its payload, and the special fields."""
    if text.startswith("{"):
        try:
            payload = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            payload = None
        if isinstance(payload, dict) and not is_deep(payload):
            return _structured(payload)
    return {"textPayload": text}


def _structured(payload: dict[str, Any]) -> Entry:
    entry: Entry = {}
    severity = str(payload.get("severity", "")).upper()
    if severity in SEVERITIES:
        entry["severity"] = severity
        del payload["severity"]
    with contextlib.suppress(KeyError, TypeError, ValueError):
        entry["timestamp"] = clock.rfc3339(clock.moment(payload["time"]))
        del payload["time"]
    for field, name, kind in _SPECIAL:
        if payload.get(field) and isinstance(payload[field], kind):
            entry[name] = payload.pop(field)
    if set(payload) == {"message"} and isinstance(payload["message"], str):
        entry["textPayload"] = payload["message"]
    else:
        entry["jsonPayload"] = payload
    return entry
