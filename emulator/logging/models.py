"""Log entries of revisions: written as they come, found again by a filter."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emulator import clock
from emulator.logging.filters import Condition, matches
from emulator.names import Key

Entry = dict[str, Any]

_count = itertools.count()
# Cloud Logging's limit for one entry; a longer line is cut.
_LONGEST = 256 * 1024


class RevisionLog:
    """The log of one revision: a file with one LogEntry as JSON on each line."""

    def __init__(self, path: Path, revision: Key, service: str) -> None:
        self._path = path
        self._project = revision.project
        self._labels = {
            "project_id": revision.project,
            "location": revision.region,
            "service_name": service,
            "revision_name": revision.name,
            "configuration_name": service,
        }

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
            "timestamp": moment,
            "receiveTimestamp": moment,
            # Unique, and in the order of writing within the same microsecond.
            "insertId": f"{clock.next_version()}{next(_count):06d}",
            "resource": {"type": "cloud_run_revision", "labels": self._labels},
            **content,
        }
        trace = entry.get("trace", "")
        if trace and "/" not in trace:
            entry["trace"] = f"projects/{self._project}/traces/{trace}"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")


class Logs:
    """The logs of every revision, in a folder: `project/region/service/revision.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, revision: Key, service: str) -> RevisionLog:
        """The log to write a revision's entries to."""
        folder = self._folder / revision.project / revision.region / service
        return RevisionLog(folder / f"{revision.name}.jsonl", revision, service)

    def entries(self, project: str, conditions: list[Condition]) -> list[Entry]:
        """The project's entries that satisfy every condition, oldest first."""
        found = [
            entry
            for path in self._files(project, conditions)
            for entry in _read(path)
            if matches(entry, conditions)
        ]
        found.sort(key=lambda entry: (entry["timestamp"], entry["insertId"]))
        return found

    def _files(self, project: str, conditions: list[Condition]) -> list[Path]:
        """Only the files that can match, where the filter names a service or revision."""
        exact = {c.field: c.value for c in conditions if c.operator == "="}
        parts = (
            exact.get("resource.labels.location", "*"),
            exact.get("resource.labels.service_name", "*"),
            exact.get("resource.labels.revision_name", "*"),
        )
        home = self._folder / project
        return [
            path
            for path in home.glob("*/*/*.jsonl")
            if all(
                wanted in ("*", found)
                for wanted, found in zip(
                    parts, (*path.relative_to(home).parts[:2], path.stem), strict=True
                )
            )
        ]

    def forget(self, service: Key) -> None:
        """Delete the logs of a service's revisions."""
        shutil.rmtree(self._folder / service.path, ignore_errors=True)


def _read(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            # A kill can leave the last line without its end.
            if line.endswith("\n"):
                yield json.loads(line)


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
    severity = payload.pop("severity", None)
    if isinstance(severity, str):
        entry["severity"] = severity.upper()
    for field, name in (("trace", "trace"), ("spanId", "spanId"), ("labels", "labels")):
        value = payload.pop(f"logging.googleapis.com/{field}", None)
        if value:
            entry[name] = value
    if set(payload) == {"message"} and isinstance(payload["message"], str):
        entry["textPayload"] = payload["message"]
    else:
        entry["jsonPayload"] = payload
    return entry
