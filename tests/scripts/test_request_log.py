"""Users' answers from the request log: each counted once, in bounded reads, or said to be late."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from emulator.logging import filters
from emulator.logging.models import Logs, place
from emulator.names import Key
from emulator.served import Served
from scripts.cloud import request_log
from scripts.cloud.request_log import RequestLog
from scripts.config.formats import Watch
from scripts.errors import ShipError
from scripts.release.watch import Read, see
from tests.scripts.test_hostile_numbers import PIPELINE, google

PROJECT = PIPELINE.environment.project
STABLE, CANDIDATE = (Key(PROJECT, "us-central1", name) for name in ("app-1", "app-2"))
RULES = Watch(source="logs", own_delay="0s", warm_up="0s")


class LocalLog:
    """The local Cloud Run's log in this process, read through what the product needs of `Google`.

    Attributes:
        pages: how many were read.
    """

    def __init__(self, folder: Path) -> None:
        self.logs = Logs(folder)
        self.pages = 0

    def add(
        self, revision: Key, ended: float, status: int = 200, *, took: float = 0.1,
        service: str = "app", agent: str | None = None,
    ) -> None:  # fmt: skip
        """Write the entry of a request that ended at a time."""
        served = Served(
            ended - took, took, "GET", "app.test", "/", (1, 1), status, None, 9, agent, None, None,
            "trace",
        )  # fmt: skip

        async def write() -> None:
            self.logs.requests(revision, service, [served])
            self.logs.flush()

        asyncio.run(write())

    def now(self) -> float:
        return time.time()

    def query(self, _: str, __: str, body: dict[str, Any], ___: Any) -> dict[str, Any]:
        self.pages += 1
        wanted, size = filters.parse(body["filter"]), body["pageSize"]
        after = tuple(body["pageToken"].split("/")) if "pageToken" in body else None
        assert body["resourceNames"] == [f"projects/{PROJECT}"]
        assert body["orderBy"] == "timestamp asc"

        async def page() -> list[dict[str, Any]]:
            return await self.logs.page([PROJECT], wanted, size + 1, after=after)

        found = asyncio.run(page())
        more = {"nextPageToken": "/".join(place(found[size - 1]))} if len(found) > size else {}
        return {"entries": found[:size], **more}

    def reader(self, start: float, delay: float = 0.0) -> RequestLog:
        apis: Any = self
        return RequestLog(
            apis, PIPELINE, "us-central1", start=start, delay=delay, without="shipway-smoke"
        )


@pytest.fixture
def log(tmp_path: Path) -> LocalLog:
    return LocalLog(tmp_path)


def counts(read: Read, since: float) -> tuple[int, int, int, int]:
    """Return how many both revisions answered, and the candidate's errors and slow answers."""
    seen = see(read.points, "app-2", "app-1", rules=RULES, since=since, until=read.until)
    mine = seen.candidate
    return mine.answers, seen.stable.answers, mine.errors, mine.slow


def test_each_answer_counts_once_and_checks_do_not(log: LocalLog) -> None:
    start = float(int(time.time()) - 300)
    reader = log.reader(start)
    assert counts(reader.read(), start) == (0, 0, 0, 0)
    log.add(STABLE, start + 10)
    log.add(CANDIDATE, start + 10, 500)
    log.add(CANDIDATE, start + 11, 404, took=0.5)
    log.add(CANDIDATE, start + 11, agent="shipway-smoke")
    log.add(CANDIDATE, start + 11, service="other")
    log.add(Key(PROJECT, "europe-west1", "app-2"), start + 11)
    assert counts(reader.read(), start) == (2, 1, 1, 1)
    assert counts(reader.read(), start) == (2, 1, 1, 1)
    log.add(STABLE, start + 5)  # comes late
    log.add(CANDIDATE, start + 250, 504, took=240)  # began long ago, and is there since its end
    assert counts(reader.read(), start) == (3, 2, 2, 2)
    assert counts(log.reader(start).read(), start) == (3, 2, 2, 2), "for another watcher, too"
    assert log.pages == 5


def test_what_is_not_complete_yet_is_not_seen(log: LocalLog) -> None:
    start = float(int(time.time()) - 300)
    log.add(CANDIDATE, start + 10)
    log.add(CANDIDATE, time.time() - 5)
    assert counts(log.reader(start, delay=60).read(), start) == (1, 0, 0, 0)


def test_a_look_reads_a_few_pages_and_the_next_one_goes_on(
    log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "_PAGE", 4)
    monkeypatch.setattr(request_log, "PAGES", 2)
    monkeypatch.setattr(request_log, "_AGAIN", timedelta())
    start = float(int(time.time()) - 300)
    for number in range(20):
        log.add((STABLE, CANDIDATE)[number % 2], start + 10 * number + 5, took=0.0)
    reader = log.reader(start)
    found = []
    for _ in range(4):
        read, pages = reader.read(), log.pages
        found.append((counts(read, start)[:2], round(read.until - start), read.behind > 0))
        assert pages <= 2 * len(found)
    # Up to the last one that was read: it may have others beside it.
    assert found[:2] == [((3, 4), 75, True), ((7, 8), 155, True)]
    assert found[2][0] == (10, 10)
    log.add(CANDIDATE, start + 290)
    assert counts(reader.read(), start) == (11, 10, 0, 0)


def entry(**more: Any) -> dict[str, Any]:
    return {
        "insertId": "a",
        "timestamp": "2027-01-15T08:00:10Z",
        "receiveTimestamp": "2027-01-15T08:00:11.123456789Z",
        "resource": {"labels": {"revision_name": "app-2"}},
        "httpRequest": {"status": 200, "latency": "0.5s"},
        **more,
    }


def read(page: Any) -> Read:
    with google(page) as apis:
        return RequestLog(
            apis, PIPELINE, "us-central1", start=1_800_000_000.0, delay=0, without="shipway-smoke"
        ).read()


def test_an_entry_as_google_writes_it() -> None:
    [point] = read({"entries": [entry()]}).points
    assert (point.answers, point.slower(500), point.slower(501)) == (1, 1, 0)


@pytest.mark.parametrize(
    "hostile",
    [
        entry(resource={"labels": {}}),
        entry(resource=None),
        entry(timestamp="soon"),
        entry(timestamp="2027-13-45T08:00:10Z"),
        entry(receiveTimestamp=7),
        entry(httpRequest={"status": "200"}),
        entry(httpRequest={"status": -1}),
        entry(httpRequest={"status": 200, "latency": "-1s"}),
        entry(httpRequest={"status": 200, "latency": "9" * 400 + "s"}),
        entry(httpRequest={"status": 200, "latency": "999999999s"},
              timestamp="9999-12-31T23:59:59Z"),
        entry(httpRequest=None),
    ],
    ids=lambda hostile: json.dumps(hostile)[-100:],
)  # fmt: skip
def test_an_entry_that_cannot_be_true_is_an_error(hostile: dict[str, Any]) -> None:
    with pytest.raises(ShipError, match="Cloud Logging"):
        read({"entries": [entry(), hostile]})


def test_pages_that_never_end_are_said_to_be_late() -> None:
    found = read({"entries": [entry()], "nextPageToken": "again"})
    assert found.until < 1_800_000_011, "up to the last entry"
    assert sum(point.answers for point in found.points) == 1
