"""What a wait and a log show: progress every few seconds, and errors from their first line."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from scripts.cloud.logs import end_of
from scripts.command import progress
from scripts.command.progress import Progress
from scripts.config.formats import Check, Expect
from scripts.service import checks
from tests.scripts.test_hostile_revision import server

TRACEBACK = "Traceback (most recent call last):"


def numbered(count: int) -> list[str]:
    return [f"line {number}" for number in range(count)]


def frames(count: int) -> list[str]:
    return [f'  File "main.py", line {number}' for number in range(count)]


def test_a_short_log_is_shown_whole_and_a_long_one_from_its_end() -> None:
    assert end_of([]) == ["(its log is empty)"]
    assert end_of(numbered(10)) == numbered(10)
    assert end_of(numbered(50)) == numbered(50)[-10:]


def test_a_traceback_is_shown_from_its_first_line() -> None:
    error = [TRACEBACK, *frames(20), "KeyError: 'DATABASE_URL'"]
    assert end_of([*numbered(50), *error, "stopped"]) == [*error, "stopped"]


def test_a_traceback_before_other_lines_is_not_the_end_of_a_log() -> None:
    error = [TRACEBACK, *frames(3), "an error that was handled"]
    assert end_of([*error, *numbered(12)]) == numbered(12)[-10:]


def test_the_cause_of_an_error_is_shown_with_it() -> None:
    between = "The above exception was the direct cause of the following exception:"
    cause = [TRACEBACK, *frames(3), "OSError: refused", "", between, ""]
    error = [TRACEBACK, *frames(12), "RuntimeError: no database"]
    earlier = [TRACEBACK, *frames(3), "an error of an earlier request"]
    assert end_of([*earlier, *cause, *error]) == [*cause, *error]


def test_the_stack_of_another_language_is_shown_with_its_error() -> None:
    error = ["Error: no database", *("    at connect (/app/db.js:3:9)" for _ in range(14))]
    assert end_of([*numbered(20), *error]) == error


def test_a_long_traceback_keeps_its_first_lines_and_its_last() -> None:
    error = [TRACEBACK, *frames(100), "RecursionError: maximum depth exceeded"]
    shown = end_of(error)
    assert (shown[0], shown[-1], len(shown)) == (TRACEBACK, error[-1], 41)
    assert "(62 lines left out)" in shown


def test_a_step_prints_what_it_waits_for_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Progress().step("deploy", "abc") as step:
        for now in range(12):  # noqa: B007 - the clock reads it
            step.still("waiting for app-1 to become ready")
        step.say("ready")
        step.still("waiting for more")
    assert capsys.readouterr().err.splitlines() == [
        "deploy   after 5 s: waiting for app-1 to become ready",
        "deploy   after 10 s: waiting for app-1 to become ready",
        "deploy   ready",
        "deploy   abc (11.0 s)",
    ]
    assert progress._STILL_SECONDS == 5


def test_a_slow_answer_is_not_waited_for_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_TELL_SECONDS", 0.05)
    told = threading.Event()
    lines: list[str] = []

    def tell(text: str) -> None:
        lines.append(text)
        told.set()

    def late() -> Iterator[bytes]:
        assert told.wait(10)
        yield b"HTTP/1.1 200 OK\r\n\r\n"

    with server(late) as url:
        [outcome] = checks.run(url, [Check(path="/", expect=Expect())], "", tell=tell)
    assert outcome.ok
    assert lines[0] == "GET /: no answer yet"


def test_an_answer_that_may_become_another_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 503 while a service starts."""
    answers = [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 503 Starting\r\n\r\n"]
    lines: list[str] = []
    with server(lambda: iter([answers.pop()])) as url:
        [outcome] = checks.run(url, [Check(path="/", expect=Expect())], "", tell=lines.append)
    assert outcome.ok
    assert lines == ["GET /: status 503, expected 200; trying again"]
