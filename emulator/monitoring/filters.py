"""The supported part of Monitoring's filters: comparisons of labels, joined by AND.

Source: https://cloud.google.com/monitoring/api/v3/filters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from emulator.errors import invalid

RESOURCE = "cloud_run_revision"
_TERM = re.compile(
    r"""\s*(?P<field>(?:metric|resource)\.(?:type|labels?\."?\w+"?))\s*(?P<operator>!?=)\s*
    (?:(?P<function>one_of|starts_with|ends_with|has_substring)\s*\((?P<arguments>[^)]*)\)
    |"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s()"]+))\s*(?P<joined>AND\b|$|(?=[a-z]))""",
    re.VERBOSE,
)
_LABELS = {
    "resource": ("project_id", "location", "service_name", "revision_name", "configuration_name"),
    "metric": ("response_code", "response_code_class"),
}


class Filter(NamedTuple):
    """A parsed filter: the metric type, and a test for the labels of its series."""

    metric: str
    matches: Callable[[dict[str, str]], bool]


def parse(text: str) -> Filter:
    """Parse a filter; raise a 400 ApiError that names the unsupported part."""
    metric = ""
    conditions: list[tuple[str, Callable[[str], bool]]] = []
    at = 0
    while text[at:].strip():
        term = _TERM.match(text, at)
        if not term:
            raise invalid(
                f"Unparseable or unsupported filter at: {text[at:].strip()[:80]}", "filter"
            )
        at = term.end()
        test = _test(term)
        if term["field"] == "metric.type":
            if term["operator"] != "=" or term["function"] or metric:
                raise invalid("The filter must specify a single metric type.", "filter")
            metric = _value(term)
        elif term["field"] == "resource.type":
            if not test(RESOURCE):
                conditions.append(("resource.project_id", lambda _: False))
        else:
            conditions.append((label(term["field"]), test))
    if not metric:
        raise invalid("The filter must specify a single metric type.", "filter")
    return Filter(metric, lambda labels: all(holds(labels[name]) for name, holds in conditions))


def label(field: str) -> str:
    """Return the label of a Series for `resource.labels.location` or `resource.label.location`."""
    kind, _, name = field.replace('"', "").partition(".")
    name = name.removeprefix("labels.").removeprefix("label.")
    if name not in _LABELS.get(kind, ()):
        raise invalid(f"The supplied filter names a label that does not exist: {field}", "filter")
    return f"{kind}.{name}"


def _test(term: re.Match[str]) -> Callable[[str], bool]:
    wanted = term["operator"] == "="
    if not term["function"]:
        value = _value(term)
        return lambda found: (found == value) == wanted
    arguments = re.findall(r'"([^"]*)"', term["arguments"])
    functions: dict[str, Callable[[str], bool]] = {
        "one_of": lambda found: found in arguments,
        "starts_with": lambda found: found.startswith(tuple(arguments)),
        "ends_with": lambda found: found.endswith(tuple(arguments)),
        "has_substring": lambda found: any(part in found for part in arguments),
    }
    function = functions[term["function"]]
    return lambda found: function(found) == wanted


def _value(term: re.Match[str]) -> str:
    return term["bare"] if term["quoted"] is None else re.sub(r"\\(.)", r"\1", term["quoted"])
