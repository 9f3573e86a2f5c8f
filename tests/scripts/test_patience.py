"""The policy of retries: pauses, what a server asks for, and the limit of all calls together."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate

import pytest
import requests

from scripts.cloud.patience import Patience, Trouble
from scripts.cloud.session import Session, retry_after
from tests.scripts.conftest import Clock


def troubled(
    times: int, after: float | None = None, clock: Clock | None = None
) -> tuple[list[float], object]:
    """Return when each try began, and a function that fails so many times, then returns "done"."""
    tries: list[float] = []

    def attempt() -> str:
        tries.append((clock or time).monotonic())
        if len(tries) <= times:
            raise Trouble("Cloud Run answers 503", lambda: "the last answer", after)
        return "done"

    return tries, attempt


@pytest.mark.usefixtures("clock")
def test_says_each_pause() -> None:
    said: list[str] = []
    tries, attempt = troubled(2)
    assert Patience(5, said.append).persist(attempt) == "done"
    assert len(tries) == 3
    assert [line.partition(", next in ")[0] for line in said] == [
        "Cloud Run answers 503; try 2",
        "Cloud Run answers 503; try 3",
    ]


def test_the_last_answer_counts_when_the_time_is_up(clock: Clock) -> None:
    tries, attempt = troubled(1000)
    assert Patience(60).persist(attempt) == "the last answer"
    assert 20 < clock.now < 30, "a call gets half; it begins no pause of at most 8 s in vain"
    assert len(tries) > 3


def test_waits_as_long_as_the_server_asks_but_not_longer_than_it_may(clock: Clock) -> None:
    tries, attempt = troubled(1, after=2, clock=clock)
    assert Patience(5).persist(attempt) == "done"
    assert tries[1] - tries[0] == 2
    said: list[str] = []
    tries, attempt = troubled(1, after=600)
    assert Patience(5, said.append).persist(attempt) == "the last answer"
    assert len(tries) == 1
    assert said == ["Cloud Run answers 503 and asks to wait 600 s: not tried again"]


def test_all_calls_share_the_limit_and_parallel_ones_count_once() -> None:
    patience, began = Patience(60), time.monotonic()
    attempts = [troubled(1, after=0.6)[1] for _ in range(4)]
    calls = [threading.Thread(target=patience.persist, args=(attempt,)) for attempt in attempts]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert 0.6 <= 60 - patience.left() <= time.monotonic() - began


def test_a_quarter_of_the_limit_is_kept_to_undo_what_failed() -> None:
    patience = Patience(60)
    patience.keep()
    assert patience.left() == 45
    patience.use_kept()
    assert patience.left() == 15


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), (formatdate(4102444800, usegmt=True), 21600, 21600), ("soon", None, None)],
)
def test_retry_after(value: str, least: float | None, most: float | None) -> None:
    answer = requests.Response()
    answer.headers["Retry-After"] = value
    found = retry_after(answer)
    if least is None or most is None:
        assert found is None
    else:
        assert found is not None
        assert least <= found <= most


def test_a_hang_ends_in_seconds() -> None:
    session = Session(Patience(60))
    assert session._timeout(None) == (5.0, 10.0)
    assert session._timeout(120) == (5.0, 10.0), "what google-auth asks for"
    assert Session(Patience(2))._timeout((5.0, 30.0)) == (3.0, 3.0)
