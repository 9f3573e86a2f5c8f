"""Log entries of revisions: written as they come, found again by a filter."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from emulator import clock
from emulator.logging import requests
from emulator.logging.files import Files, newest_first
from emulator.logging.filters import Filter
from emulator.logging.matching import SEVERITIES, Entry
from emulator.names import Key
from emulator.served import Served

_count = itertools.count()
# Cloud Logging's limit for one entry; a longer line is cut.
_LONGEST = 256 * 1024
# What a line of JSON says about its entry, and where that goes.
_SPECIAL = (
    ("logging.googleapis.com/trace", "trace", str),
    ("logging.googleapis.com/trace_sampled", "traceSampled", bool),
    ("logging.googleapis.com/spanId", "spanId", str),
    ("logging.googleapis.com/labels", "labels", dict),
)
_WRITTEN, _REQUESTS = ".jsonl", ".requests.jsonl"
Place = tuple[str, str]


class RevisionLog:
    """The log of one revision: what its containers wrote and what was said of them."""

    def __init__(self, files: Files, path: Path, revision: Key) -> None:
        self._files = files
        self._path = path
        self._project = revision.project

    def line(self, stream: str, text: str) -> None:
        """Take one line that a container wrote to `stream` ("stdout" or "stderr")."""
        self._append(stream, _parsed(text[:_LONGEST]))

    def system(self, severity: str, text: str) -> None:
        """Write what Cloud Run itself has to say about an instance."""
        self._append("varlog%2Fsystem", {"severity": severity, "textPayload": text})

    def _append(self, name: str, content: Entry) -> None:
        moment = clock.now()
        entry: Entry = {
            "logName": f"projects/{self._project}/logs/run.googleapis.com%2F{name}",
            "timestamp": min(content.pop("timestamp", moment), moment),
            "receiveTimestamp": moment,
            "insertId": next_id(),
            **content,
        }
        trace = entry.get("trace", "")
        if trace and "/" not in trace:
            entry["trace"] = f"projects/{self._project}/traces/{trace}"
        self._files.append(self._path, msgspec.json.encode(entry))


_LINE_OF_REQUESTS = 100


def next_id() -> str:
    """An insertId: unique, and in the order of writing within the same microsecond."""
    return f"{clock.next_version()}{next(_count):06d}"


class Logs:
    """The logs of every revision, in a folder.

    `project/region/service/revision.jsonl` is what containers wrote, `….requests.jsonl` what they
    were asked. What all entries of a file have in common is not in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = Files()

    def of(self, revision: Key, service: str) -> RevisionLog:
        """The log to write a revision's entries to."""
        return RevisionLog(self._files, self._path(revision, service, _WRITTEN), revision)

    def requests(self, revision: Key, service: str, batch: list[Served]) -> None:
        """Write an entry about each of these requests to a revision."""
        path = self._path(revision, service, _REQUESTS)
        # In lines of bounded length, so that a file that is full ends not long after.
        for start in range(0, len(batch), _LINE_OF_REQUESTS):
            part = batch[start : start + _LINE_OF_REQUESTS]
            self._files.append(path, requests.document(part, next_id()))

    async def page(
        self,
        projects: list[str],
        wanted: Filter,
        count: int,
        *,
        newest: bool = False,
        after: Place | None = None,
    ) -> list[Entry]:
        """The first `count` entries that satisfy a filter, oldest first unless `newest`.

        `after` is the `place` of the last entry of the page before.
        """
        self.flush()
        files = [file for project in projects for file in self._found(project, wanted)]
        read = _newest if newest else _oldest
        return await asyncio.to_thread(read, files, wanted, count, after)

    def _found(self, project: str, wanted: Filter) -> Iterator[_File]:
        """The files that can match, where the filter names a service or revision."""
        home = self._folder / project
        for path in home.glob(f"*/*/*{_WRITTEN}"):
            region, service = path.relative_to(home).parts[:2]
            labels = {
                "project_id": project,
                "location": region,
                "service_name": service,
                "revision_name": path.name.partition(".")[0],
                "configuration_name": service,
            }
            exact = ((wanted.exact.get(f"resource.labels.{n}"), v) for n, v in labels.items())
            if all(asked is None or asked.casefold() == label for asked, label in exact):
                yield _File(path, labels)

    def flush(self) -> None:
        """Write what is not written yet."""
        self._files.flush()

    def _path(self, revision: Key, service: str, kind: str) -> Path:
        return self._folder / revision.sibling(service).path / f"{revision.name}{kind}"


class _File(NamedTuple):
    """A file of entries, and the labels of the revision that all of them are about."""

    path: Path
    labels: dict[str, str]

    def entries(self, wanted: Filter, since: Callable[[], str]) -> Iterator[Entry]:
        """Those that satisfy a filter, roughly newest first, until none from `since()` is left."""
        resource = {"type": "cloud_run_revision", "labels": self.labels}
        for stored in newest_first(self.path):
            # A file is in the order of receiving, and nothing is received before it happens.
            if stored["receiveTimestamp"] < since():
                return
            for entry in self._made(stored):
                entry["resource"] = resource
                if wanted.matches(entry):
                    yield entry

    def _made(self, stored: Entry) -> Iterable[Entry]:
        if "requests" in stored:
            return requests.entries(stored, self.labels["project_id"])
        return (stored,)


def _oldest(files: list[_File], wanted: Filter, count: int, after: Place | None) -> list[Entry]:
    since = max(wanted.since, after[0]) if after else wanted.since
    found = (entry for file in files for entry in file.entries(wanted, lambda: since))
    return heapq.nsmallest(count, (e for e in found if after is None or place(e) > after), place)


def _newest(files: list[_File], wanted: Filter, count: int, after: Place | None) -> list[Entry]:
    kept: list[tuple[Place, Entry]] = []  # a heap of the newest so far, the oldest of them on top

    def since() -> str:
        return max(wanted.since, kept[0][0][0]) if len(kept) == count else wanted.since

    for file in files:
        for entry in file.entries(wanted, since):
            at = place(entry)
            if after is not None and at >= after:
                continue
            if len(kept) < count:
                heapq.heappush(kept, (at, entry))
            else:
                heapq.heappushpop(kept, (at, entry))
    return [entry for _, entry in sorted(kept, key=lambda pair: pair[0], reverse=True)]


def place(entry: Entry) -> Place:
    """Where an entry stands among others."""
    return entry["timestamp"], entry["insertId"]


def _parsed(text: str) -> Entry:
    """A line as the payload of an entry.

    Source: https://cloud.google.com/logging/docs/structured-logging (the special fields).
    """
    if text.startswith("{"):
        try:
            payload = json.loads(text)
        except ValueError:
            payload = None
        if isinstance(payload, dict):
            return _structured(payload)
    return {"textPayload": text}


def _structured(payload: dict[str, Any]) -> Entry:
    entry: Entry = {}
    severity = str(payload.get("severity", "")).upper()
    if severity in SEVERITIES:
        entry["severity"] = severity
        del payload["severity"]
    with contextlib.suppress(KeyError, TypeError, ValueError):
        entry["timestamp"] = clock.rfc3339(_aware(payload["time"]))
        del payload["time"]
    for field, name, kind in _SPECIAL:
        if payload.get(field) and isinstance(payload[field], kind):
            entry[name] = payload.pop(field)
    if set(payload) == {"message"} and isinstance(payload["message"], str):
        entry["textPayload"] = payload["message"]
    else:
        entry["jsonPayload"] = payload
    return entry


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment
