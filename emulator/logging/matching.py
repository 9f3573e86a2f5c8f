"""Compares a field of a log entry with a value.

Source: https://cloud.google.com/logging/docs/view/logging-query-language, "Comparisons", "Values
and conversions", "Missing fields". An entry without a field that LogEntry defines has the field's
default value. An absent field of a payload or label is missing: no comparison with it holds. Text
comparisons ignore case, except in regular expressions. These are RE2's, as at Google's: they take
linear time, whatever the text, and other threads run meanwhile.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime
from typing import Any

from emulator import clock

Entry = dict[str, Any]

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

_MISSING = object()
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TEXTS = (
    *("logName", "insertId", "trace", "spanId", "textPayload", "resource.type"),
    *("httpRequest.requestMethod", "httpRequest.requestUrl", "httpRequest.userAgent"),
    *("httpRequest.remoteIp", "httpRequest.serverIp", "httpRequest.referer"),
    "httpRequest.protocol",
)
_NUMBERS = ("httpRequest.status", "httpRequest.requestSize", "httpRequest.responseSize")
_MOMENTS = ("timestamp", "receiveTimestamp")
_ROOTS = ("httpRequest", "jsonPayload", "labels", "resource")


def present(path: tuple[str, ...]) -> Callable[[Entry], bool]:
    """Return a test for `field:*`: whether an entry has the field.

    Args:
        path: The steps to the field, such as ("resource", "labels", "location").

    Raises:
        ValueError: No entry can have the field.
    """
    if not (path[0] in _ROOTS or _converter(path) is not None):
        raise ValueError("Unsupported field")
    return lambda entry: _at(entry, path) is not _MISSING


def comparison(path: tuple[str, ...], sign: str, value: str) -> Callable[[Entry], bool]:
    """Return a test for `field sign value`, such as `severity>=ERROR`.

    Raises:
        ValueError: No entry can have the field, or it cannot be compared with the value. The text
            says what is wrong.
    """
    if sign in ("=~", "!~"):
        return _regular_expression(path, sign, value)
    convert = _converter(path)
    if convert is None:
        return _of_writers_own(path, sign, value)
    if sign == ":" and convert is _text:
        wanted = value.casefold()
        return lambda entry: wanted in _text(_value(entry, path, ""))
    compare = _OPERATORS["=" if sign == ":" else sign]
    right = convert(value)
    default = _default(convert)
    return lambda entry: compare(convert(_value(entry, path, default)), right)


def _regular_expression(path: tuple[str, ...], sign: str, value: str) -> Callable[[Entry], bool]:
    convert = _converter(path)
    if convert not in (None, _text):
        raise ValueError("Unsupported comparison")
    if convert is None:
        _check_writers_own(path)
    # Imported late: few filters have a regular expression.
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(value, options)
    except re2.error:
        raise ValueError("Unreadable regular expression") from None
    wanted = sign == "=~"
    default = _MISSING if convert is None else ""

    def matches(entry: Entry) -> bool:
        found = _value(entry, path, default)
        return found is not _MISSING and (pattern.search(str(found)) is not None) == wanted

    return matches


def _of_writers_own(path: tuple[str, ...], sign: str, value: str) -> Callable[[Entry], bool]:
    """Compare a field of a payload or a label: as a number if the entry has one."""
    _check_writers_own(path)
    text = value.casefold()
    try:
        number: float | None = float(value)
    except ValueError:
        number = None
    compare = _OPERATORS.get(sign)

    def matches(entry: Entry) -> bool:
        found = _at(entry, path)
        if found is _MISSING or isinstance(found, dict | list):
            return False
        if compare is None:
            return text in _text(found)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return number is not None and compare(found, number)
        return compare(_text(found), text)

    return matches


def _check_writers_own(path: tuple[str, ...]) -> None:
    free = path[:2] == ("resource", "labels") and len(path) == 3
    if not free and not (path[0] in ("labels", "jsonPayload") and len(path) > 1):
        raise ValueError("Unsupported field")


def _converter(path: tuple[str, ...]) -> Callable[[Any], Any] | None:
    """Return what makes a field's values comparable; None for fields that LogEntry lacks."""
    field = ".".join(path)
    if field == "severity":
        return _severity
    if field == "httpRequest.latency":
        return _seconds
    if field in _MOMENTS:
        return _moment
    if field in _NUMBERS:
        return _number
    return _text if field in _TEXTS else None


def _default(convert: Callable[[Any], Any]) -> Any:
    defaults: dict[Callable[[Any], Any], Any] = {_severity: "DEFAULT", _seconds: "0s", _number: 0}
    return defaults.get(convert, "")


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value).casefold()


def _severity(value: Any) -> int:
    try:
        return SEVERITIES.index(str(value).upper())
    except ValueError:
        raise ValueError("Unknown severity") from None


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError("Unreadable number") from None


def _seconds(value: Any) -> float:
    try:
        return clock.seconds(str(value))
    except ValueError:
        raise ValueError("Unreadable duration") from None


def _moment(value: Any) -> datetime:
    try:
        return clock.moment(str(value))
    except ValueError:
        raise ValueError("Unreadable timestamp, or one without a time zone") from None


def _value(entry: Entry, path: tuple[str, ...], default: Any) -> Any:
    found = _at(entry, path)
    return default if found is _MISSING else found


def _at(entry: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        entry = entry.get(step, _MISSING) if isinstance(entry, dict) else _MISSING
    return entry
