"""Any filter is applied or refused, in time: of logs, of metrics, of labels, of claims."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.errors import ApiError
from emulator.identity import expressions
from emulator.logging import filters as logs
from emulator.monitoring import filters as metrics
from emulator.run import list_parameters
from tests.fuzz import fuzz
from tests.fuzz.changes import Change, changed, changes, texts

ENTRY: dict[str, Any] = {
    "logName": "projects/acme/logs/run.googleapis.com%2Fstdout",
    "timestamp": "2026-01-31T12:00:00.123456Z",
    "severity": "ERROR",
    "resource": {"type": "cloud_run_revision", "labels": {"revision_name": "app-1"}},
    "textPayload": "a" * 3000 + "!",
    "jsonPayload": {"a": {"b": [1, None, {"c": "d"}]}, "n": 1.5, "t": True},
    "httpRequest": {"status": 500, "latency": "1.5s"},
}
LABELS = {"resource.location": "us-central1", "metric.response_code": "200"}
LOG = [
    "severity", "timestamp", "textPayload", "jsonPayload.a.b", 'labels."x y"', "httpRequest.status",
    "httpRequest.latency", "resource.labels.revision_name", "=", "!=", "=~", "!~", ">=", "<", ":",
    "*",
    '"a"', '"^(a+)+$"', '"(?:(?:a{99}){99}){9}"', '"["', '"\\\\"', "ERROR", "500", "1.5s",
    "AND", "OR",
    "NOT", "-", "(", ")", '"2026-01-31T12:00:00Z"', '"2026"', "NULL_VALUE", ",",
    "sample(insertId, 1)",
]  # fmt: skip
METRIC = [
    "metric.type", "=", '"run.googleapis.com/request_count"', "AND", "OR", "NOT", "(", ")", "!=",
    "resource.type", 'resource.labels."service_name"', "resource.labels.location", "one_of(", '"a"',
    "starts_with(", "has_substring(", "metric.labels.response_code", ",", "a", '"', "\\",
]  # fmt: skip
SELECTOR = ["a", "=", "==", "!=", "in", "notin", "(", ")", ",", "!", "a/b", " ", "b", "("]
CLAIMS = [
    "assertion.a", "google.subject", "==", "'1'", "&&", "||", "!", "(", ")", "[", "]", "in", "has(",
    "assertion.a.startsWith('x')", ".matches('^(a+)+$')", "1/0", "9" * 30, "size(", "null", "?",
    ":",
    "assertion.l.exists(x, x == '1')", ".map(x, x)", "'a' + 'b'", "{", "}", "timestamp('x')", ".",
]  # fmt: skip


def of(tokens: list[str]) -> st.SearchStrategy[str]:
    """Return texts of a language's tokens, with others among them."""
    some = st.one_of(st.sampled_from(tokens), st.sampled_from(tokens), texts)
    several = st.lists(some, max_size=12)
    return st.builds(str.join, st.sampled_from([" ", ""]), several)


def _logs(text: str, entry: dict[str, Any]) -> None:
    logs.parse(text).matches(entry)


def _metrics(text: str, _entry: dict[str, Any]) -> None:
    found = metrics.parse(text)
    found.matches(dict.fromkeys(["resource.project_id", *_names()], "x") | LABELS)


def _names() -> list[str]:
    return [f"{kind}.{name}" for kind, names in metrics._LABELS.items() for name in names]


def _selector(text: str, _entry: dict[str, Any]) -> None:
    list_parameters.select([{"metadata": {"labels": {"a": "b"}}}, {"metadata": {}}], text)


def _claims(text: str, entry: dict[str, Any]) -> None:
    try:
        expressions.check(text)
        expressions.evaluate(text, {"assertion": entry, "google": {"subject": "x"}})
    except expressions.BadExpression:
        pass


LANGUAGES: dict[str, tuple[list[str], Callable[[str, dict[str, Any]], None]]] = {
    "logs": (LOG, _logs),
    "metrics": (METRIC, _metrics),
    "labels": (SELECTOR, _selector),
    "claims": (CLAIMS, _claims),
}
FOUND: list[tuple[str, str]] = [
    ("logs", 'textPayload=~"^(a+)+$"'),
    ("logs", "(" * 9000),
    ("logs", "NOT " * 4000 + "a=b"),
    ("logs", 'timestamp>="0001-01-01T00:00:00+23:59"'),
    ("logs", "-(" * 4000),
    ("logs", "(" * 100_000),
    ("logs", "severity=INFO OR " * 2000),
    ("logs", 'textPayload=~"(((a{100}){100}){100}){100}"'),
    ("labels", "a in (" * 5000),
    ("labels", "," * 8000),
    ("labels", "(," * 4000),
    ("labels", "a(b," * 2000),
]


def check(language: str, text: str, entry: dict[str, Any]) -> None:
    began = time.thread_time()
    try:
        LANGUAGES[language][1](text, entry)
    except ApiError as refusal:
        assert refusal.status == "INVALID_ARGUMENT", refusal.status  # noqa: PT017  (not always)
    assert time.thread_time() - began < 5  # of work: a busy machine takes longer


@pytest.mark.parametrize("language", LANGUAGES)
@fuzz(50, long=6000)
@given(data=st.data(), several=st.one_of(st.just(list[Change]()), changes))
def test_a_filter_is_applied_or_refused(
    language: str, data: st.DataObject, several: list[Change]
) -> None:
    entry = changed(ENTRY, several)
    check(language, data.draw(of(LANGUAGES[language][0])), entry if isinstance(entry, dict) else {})


@pytest.mark.parametrize(("language", "text"), FOUND, ids=[text[:20] for _, text in FOUND])
def test_what_was_found_stays_refused(language: str, text: str) -> None:
    check(language, text, ENTRY)
