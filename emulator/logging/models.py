"""The logs of revisions: entries are written as they come and found with a filter."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from emulator import clock, files
from emulator.logging import requests, structured
from emulator.logging.files import Files, newest_first
from emulator.logging.filters import Filter
from emulator.logging.matching import Entry
from emulator.names import Key
from emulator.served import Served

_count = itertools.count()
# Characters: Cloud Logging limits an entry to 256 KB. A longer line is cut.
_LONGEST = 256 * 1024
# Requests in one stored line.
_LINE_OF_REQUESTS = 100
_WRITTEN, _REQUESTS = ".jsonl", ".requests.jsonl"
Place = tuple[str, str]


class RevisionLog:
    """The log of one revision: the lines of its containers, and Cloud Run's own messages."""

    def __init__(self, lines: Files, path: Path, revision: Key, container: str = "") -> None:
        self._files = lines
        self._path = path
        self._revision = revision
        self._labels = {"container_name": container} if container else {}

    def of(self, container: str) -> RevisionLog:
        """Return the same log, in which each entry names a container.

        Cloud Run's documentation does not name the label `container_name`. Its users filter by it.
        """
        return RevisionLog(self._files, self._path, self._revision, container)

    def line(self, stream: str, text: str) -> None:
        """Write the entry for one line of a container's `stream` ("stdout" or "stderr")."""
        self._append(stream, structured.content(text[:_LONGEST]))

    def system(self, severity: str, text: str) -> None:
        """Write an entry with Cloud Run's own message about an instance."""
        self._append("varlog%2Fsystem", {"severity": severity, "textPayload": text})

    def _append(self, name: str, content: Entry) -> None:
        moment = clock.now()
        project = self._revision.project
        if self._labels:
            content["labels"] = {**content.get("labels", {}), **self._labels}
        entry: Entry = {
            "logName": f"projects/{project}/logs/run.googleapis.com%2F{name}",
            "timestamp": min(content.pop("timestamp", moment), moment),
            "receiveTimestamp": moment,
            "insertId": next_id(),
            **content,
        }
        trace = entry.get("trace", "")
        if trace and "/" not in trace:
            entry["trace"] = f"projects/{project}/traces/{trace}"
        self._files.append(self._path, msgspec.json.encode(entry))


def next_id() -> str:
    """Return a unique insertId. Within one microsecond, IDs sort in the order of writing."""
    return f"{clock.next_version()}{next(_count):06d}"


class Logs:
    """The logs of every revision, in a folder.

    `project/region/service/revision.jsonl` holds the containers' entries, `….requests.jsonl` the
    requests. A file leaves out the fields that all of its entries share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = Files()

    def of(self, revision: Key, service: str) -> RevisionLog:
        """Return the log to which a revision's entries are written."""
        return RevisionLog(self._files, self._path(revision, service, _WRITTEN), revision)

    def requests(self, revision: Key, service: str, batch: list[Served]) -> None:
        """Write an entry for each of these requests to a revision."""
        path = self._path(revision, service, _REQUESTS)
        # In lines of bounded length, so that a file ends soon after it is full.
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
        """Return the first `count` entries that match a filter.

        Args:
            projects: The IDs of the projects to search.
            wanted: The filter.
            count: The size of the page.
            newest: Whether the newest entry comes first, not the oldest.
            after: The `place` of the last entry of the previous page.
        """
        self.flush()
        found = [file for project in projects for file in self._found(project, wanted)]
        read = _newest if newest else _oldest
        return await asyncio.to_thread(read, found, wanted, count, after)

    def _found(self, project: str, wanted: Filter) -> Iterator[_File]:
        """Yield the files that can hold a match: a filter may name a service or revision."""
        home = files.inside(self._folder, project)
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
        """Write all pending entries to disk."""
        self._files.flush()

    def _path(self, revision: Key, service: str, kind: str) -> Path:
        path = f"{revision.sibling(service).path}/{revision.name}{kind}"
        return files.inside(self._folder, path)


class _File(NamedTuple):
    """A file of entries, and the resource labels that all of them share."""

    path: Path
    labels: dict[str, str]

    def entries(self, wanted: Filter, since: Callable[[], str]) -> Iterator[Entry]:
        """Yield the entries since `since()` that match a filter, roughly newest first."""
        resource = {"type": "cloud_run_revision", "labels": self.labels}
        for stored in newest_first(self.path):
            # A file is in the order of receiving, and no entry is received before its timestamp.
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


def _oldest(logs: list[_File], wanted: Filter, count: int, after: Place | None) -> list[Entry]:
    since = max(wanted.since, after[0]) if after else wanted.since
    found = (entry for log in logs for entry in log.entries(wanted, lambda: since))
    return heapq.nsmallest(count, (e for e in found if after is None or place(e) > after), place)


def _newest(logs: list[_File], wanted: Filter, count: int, after: Place | None) -> list[Entry]:
    kept: list[tuple[Place, Entry]] = []  # a heap of the newest so far, with their oldest on top

    def since() -> str:
        return max(wanted.since, kept[0][0][0]) if len(kept) == count else wanted.since

    for log in logs:
        for entry in log.entries(wanted, since):
            at = place(entry)
            if after is not None and at >= after:
                continue
            if len(kept) < count:
                heapq.heappush(kept, (at, entry))
            else:
                heapq.heappushpop(kept, (at, entry))
    return [entry for _, entry in sorted(kept, key=lambda pair: pair[0], reverse=True)]


def place(entry: Entry) -> Place:
    """Return the key that puts entries in order of time."""
    return entry["timestamp"], entry["insertId"]
