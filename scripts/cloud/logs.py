"""Log entries of a service, through Cloud Logging's entries.list.

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

from scripts.cloud import answers
from scripts.cloud.google import Google
from scripts.config.pipelines import Pipeline

Entry = dict[str, Any]

SEVERITIES = (
    *("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING"),
    *("ERROR", "CRITICAL", "ALERT", "EMERGENCY"),
)
_LARGEST_PAGE = 1000
# Entries arrive late and out of order: a request's entry has the start time, but comes at the end.
_LATE = timedelta(seconds=10)
_LAST_LINES = 10
_TRACEBACK = "Traceback (most recent call last):"
_MOST_LINES = 40


class Log:
    """The log of a service in every region of an environment.

    Args:
        google: the APIs as the environment reaches them.
        pipeline: the service's files.
        revision: only entries of this revision.
        severity: only entries of this severity or a higher one.
        user_agent: only requests with this User-Agent.
    """

    def __init__(
        self,
        google: Google,
        pipeline: Pipeline,
        *,
        revision: str | None = None,
        severity: str | None = None,
        user_agent: str | None = None,
    ) -> None:
        self._google = google
        self._project = pipeline.environment.project
        regions = pipeline.environment.regions
        conditions = [
            'resource.type="cloud_run_revision"',
            f'resource.labels.service_name="{pipeline.service}"',
            "(" + " OR ".join(f'resource.labels.location="{region}"' for region in regions) + ")",
        ]
        if revision:
            conditions.append(f'resource.labels.revision_name="{revision}"')
        if severity:
            conditions.append(f"severity>={severity}")
        if user_agent:
            conditions.append(f'httpRequest.userAgent="{user_agent}"')
        self._filter = " AND ".join(conditions)

    def newest(self, start: datetime, limit: int) -> list[Entry]:
        """Read the newest `limit` entries since `start`, oldest first."""
        found: list[Entry] = []
        for page in self._pages(start, "timestamp desc", limit):
            found += page
            if len(found) >= limit:
                break
        return found[:limit][::-1]

    def follow(self, start: datetime, seen: list[Entry]) -> Iterator[list[Entry]]:
        """Yield entries since `start` that are not among `seen`, each once; never end.

        Each request starts a little before the newest entry.
        """
        known = {entry["insertId"]: entry["timestamp"] for entry in seen}
        while True:
            newest = max(map(datetime.fromisoformat, known.values()), default=start)
            since = max(start, newest - _LATE)
            fresh = []
            for page in self._pages(since, "timestamp asc", _LARGEST_PAGE):
                fresh += [entry for entry in page if entry["insertId"] not in known]
            known |= {entry["insertId"]: entry["timestamp"] for entry in fresh}
            # Older entries are not requested again.
            known = {i: t for i, t in known.items() if datetime.fromisoformat(t) >= since}
            yield fresh

    def _pages(self, start: datetime, order: str, size: int) -> Iterator[list[Entry]]:
        moment = start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{self._project}"],
            "filter": f'{self._filter} AND timestamp>="{moment}"',
            "orderBy": order,
            "pageSize": min(size, _LARGEST_PAGE),
        }
        while True:
            answer = self._google.query("logging", "/v2/entries:list", body, answers.Entries)
            yield answer.get("entries") or []
            if not answer.get("nextPageToken"):
                return
            body["pageToken"] = answer["nextPageToken"]


def end_of(lines: list[str]) -> list[str]:
    """Return the last lines of a log, from the start of the error that ends it.

    A long one loses lines in its middle: the first ones name the error, or the last ones do.
    """
    start = max(len(lines) - _LAST_LINES, 0)
    following = len(lines)
    for number in reversed([n for n, line in enumerate(lines) if _TRACEBACK in line]):
        # Python prints the cause of an error before the error.
        is_cause = any("the above exception" in line.lower() for line in lines[number:following])
        if not is_cause and _error_of(lines, number) < start:
            break
        start, following = min(start, number), number
    while start and lines[start][:1].isspace():  # the stack of another language's error
        start -= 1
    shown = lines[start:]
    left_out = len(shown) - _MOST_LINES
    if left_out > 0:
        half = _MOST_LINES // 2
        shown = [*shown[:half], f"({left_out} lines left out)", *shown[-half:]]
    return shown or ["(its log is empty)"]


def _error_of(lines: list[str], traceback: int) -> int:
    """Return the number of the line that ends a traceback: the error itself."""
    frames = takewhile(lambda line: line[:1].isspace(), lines[traceback + 1 :])
    return traceback + 1 + len([*frames])


def revision_of(entry: Entry) -> str:
    """Return the revision that wrote an entry."""
    return str(((entry.get("resource") or {}).get("labels") or {}).get("revision_name", ""))


def container_of(entry: Entry) -> str:
    """Return the container that wrote an entry; "" if the service has only one."""
    return str((entry.get("labels") or {}).get("container_name", ""))


def text_of(entry: Entry) -> str:
    """Return an entry in human-readable form: its text, its message, or its request."""
    if "httpRequest" in entry and not entry.get("jsonPayload"):
        return _request(entry["httpRequest"])
    payload = entry.get("jsonPayload") or entry.get("protoPayload") or {}
    message = entry.get("textPayload") or payload.get("message")
    return str(message or (json.dumps(payload, ensure_ascii=False) if payload else ""))


def _request(request: dict[str, Any]) -> str:
    url = urlsplit(str(request.get("requestUrl", "")))
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    latency = str(request.get("latency", "")).removesuffix("s")
    took = f" in {float(latency) * 1000:.0f} ms" if latency else ""
    return f"{request.get('status', '')} {request.get('requestMethod', '')} {path}{took}"
