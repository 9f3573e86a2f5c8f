"""The part of Cloud Logging's query language that is understood here: comparisons joined by AND.

Source: https://cloud.google.com/logging/docs/view/logging-query-language.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

from emulator.errors import invalid

SEVERITIES = (
    "DEFAULT",
    "DEBUG",
    "INFO",
    "NOTICE",
    "WARNING",
    "ERROR",
    "CRITICAL",
    "ALERT",
    "EMERGENCY",
)

_COMPARISON = re.compile(
    r"""\s*(?P<field>[A-Za-z_][\w.\-/]*)\s*(?P<operator>>=|<=|!=|=|>|<)\s*
    (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s()"]+))\s*""",
    re.VERBOSE,
)
_FIELDS = re.compile(
    r"resource\.type|resource\.labels\.\w+|timestamp|severity|logName|insertId|trace|textPayload"
    r"|jsonPayload\.[\w.]+|labels\.[\w.\-/]+"
)
_ORDERED = ("timestamp", "severity")


class Condition(NamedTuple):
    """`field operator value`, such as `severity >= ERROR`."""

    field: str
    operator: str
    value: str


def parse(text: str) -> list[Condition]:
    """The conditions of a filter; raises a 400 ApiError that names the part not understood."""
    conditions: list[Condition] = []
    rest = text.strip()
    while rest:
        found = _COMPARISON.match(rest)
        if not found:
            raise invalid(f"Unparseable or unsupported filter at: {rest[:80]}", "filter")
        quoted = found["quoted"]
        value = found["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        conditions.append(_checked(Condition(found["field"], found["operator"], value)))
        rest = rest[found.end() :]
        # Comparisons on lines of their own are joined by AND, too.
        rest = re.sub(r"^AND\b\s*", "", rest)
    return conditions


def _checked(condition: Condition) -> Condition:
    field, operator, value = condition
    part = f"{field}{operator}{value}"
    if not _FIELDS.fullmatch(field):
        raise invalid(f"Unsupported field in filter: {part}", "filter")
    if operator not in ("=", "!=") and field not in _ORDERED:
        raise invalid(f"Unsupported comparison in filter: {part}", "filter")
    if field == "severity" and value.upper() not in SEVERITIES:
        raise invalid(f"Unknown severity in filter: {part}", "filter")
    if field == "timestamp":
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise invalid(f"Unreadable timestamp in filter: {part}", "filter") from None
        if moment.tzinfo is None:
            raise invalid(f"Timestamp without a time zone in filter: {part}", "filter")
    return condition


def matches(entry: dict[str, Any], conditions: list[Condition]) -> bool:
    """Whether a log entry satisfies every condition."""
    return all(_holds(entry, condition) for condition in conditions)


def _holds(entry: dict[str, Any], condition: Condition) -> bool:
    field, operator, value = condition
    if field == "severity":
        return _compare(
            SEVERITIES.index(_severity(entry)), operator, SEVERITIES.index(value.upper())
        )
    if field == "timestamp":
        return _compare(
            datetime.fromisoformat(entry["timestamp"]), operator, datetime.fromisoformat(value)
        )
    found: Any = entry
    for step in field.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return _compare("" if found is None else str(found), operator, value)


def _severity(entry: dict[str, Any]) -> str:
    severity = entry.get("severity", "DEFAULT")
    return severity if severity in SEVERITIES else "DEFAULT"


def _compare(left: Any, operator: str, right: Any) -> bool:
    results = {
        "=": left == right,
        "!=": left != right,
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
    }
    return bool(results[operator])
