"""What a service answered to its users, from its request log in Cloud Logging.

An entry is there some seconds after its request has ended. Reading is metered: a page has at most
1,000 entries, and a project may read 60 pages a minute, for whatever reason. So a look reads only
what was received since the look before it, at most `PAGES` pages in all regions, and the next look
goes on from there. Until it has caught up, the numbers are complete up to the last entry only.

Sources: https://docs.cloud.google.com/logging/quotas ("Number of entries.list requests: 60 per
minute, per Google Cloud project", page tokens: 24 hours),
https://docs.cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list (pages, their order),
https://docs.cloud.google.com/run/docs/logging (the log run.googleapis.com/requests),
https://docs.cloud.google.com/run/docs/configuring/request-timeout (an hour at most).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from scripts.cloud import answers
from scripts.cloud.google import Google
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed
from scripts.release.watch import Point, Read

LOOKS_A_MINUTE = 2
PAGES = 10  # that a look reads at most, in all regions: a third of the project's quota
_PAGE = 1000  # entries
# Entries become visible out of order: this much is read again, and counted once.
_AGAIN = timedelta(seconds=10)
_LONGEST = timedelta(hours=1)  # an entry has the time at which its request began


class RequestLog:
    """The answers of a service in one region since a moment, each read once.

    Args:
        google: the APIs as the environment reaches them.
        pipeline: the service's files.
        region: where.
        start: in seconds since the epoch.
        delay: how many seconds late an entry is at most.
        without: the User-Agent of requests that do not count.
    """

    def __init__(
        self,
        google: Google,
        pipeline: Pipeline,
        region: str,
        *,
        start: float,
        delay: float,
        without: str,
    ) -> None:
        self._google = google
        self._start = datetime.fromtimestamp(start, UTC)
        self._delay = delay
        # The evidence finds as much in windows of 10 s as in those of a minute, and half in those
        # of a second, which are for a local Cloud Run.
        self._width = 10 if delay >= 5 else 1
        self._pages = max(1, PAGES // len(pipeline.environment.regions))
        project = pipeline.environment.project
        self._body: dict[str, Any] = {
            "resourceNames": [f"projects/{project}"],
            "orderBy": "timestamp asc",
            "pageSize": _PAGE,
        }
        self._conditions = [
            f'logName="projects/{project}/logs/run.googleapis.com%2Frequests"',
            'resource.type="cloud_run_revision"',
            f'resource.labels.service_name="{pipeline.service}"',
            f'resource.labels.location="{region}"',
            f'NOT httpRequest.userAgent="{without}"',
        ]
        self._counted: defaultdict[tuple[str, int, bool], Counter[tuple[float, float]]]
        self._counted = defaultdict(Counter)
        self._known: dict[tuple[str, str], datetime] = {}  # an entry -> when it was received
        self._query: dict[str, Any] | None = None  # that has more pages
        self._asked = 0.0  # when it began
        self._complete = start  # up to when the answers are
        self._last = self._start  # the time of its last entry so far

    def read(self) -> Read:
        """Read what is new.

        Raises:
            ApiError: Cloud Logging refuses.
            Failed: an entry has a form that is not known.
        """
        is_new = False
        for _ in range(self._pages):
            if self._query is None:
                self._query, self._asked, is_new = self._begin(), self._google.now(), True
            page = self._google.query(
                "logging", "/v2/entries:list", self._query, answers.RequestEntries
            )
            for entry in page.get("entries") or []:
                self._count(entry)
            if token := page.get("nextPageToken"):
                self._query["pageToken"] = token
                continue
            self._query = None
            self._complete = max(self._complete, self._asked - self._delay)
            if is_new:
                return Read(self._points(), self._complete)
        if self._query:  # its entries come in the order of time
            until = min(self._asked - self._delay, self._last.timestamp())
            self._complete = max(self._complete, until)
        behind = self._google.now() - self._delay - self._complete
        return Read(self._points(), self._complete, max(0.0, behind))

    def _begin(self) -> dict[str, Any]:
        """Return the query for what was not read yet."""
        begin, conditions = self._start, [*self._conditions]
        if self._known:
            again = max(self._known.values()) - _AGAIN
            self._known = {key: at for key, at in self._known.items() if at >= again}
            begin = max(begin, again - _LONGEST)
            conditions.append(f'receiveTimestamp>="{_text(again)}"')
        self._last = begin
        conditions.append(f'timestamp>="{_text(begin)}"')
        return {**self._body, "filter": " AND ".join(conditions)}

    def _count(self, entry: dict[str, Any]) -> None:
        try:
            began, received = (_moment(entry[at]) for at in ("timestamp", "receiveTimestamp"))
            took = float(entry["httpRequest"].get("latency", "0s").removesuffix("s"))
            # Like Cloud Monitoring's numbers: an answer counts when it ends.
            ended = (began + timedelta(seconds=took)).timestamp()
            revision = entry["resource"]["labels"]["revision_name"]
            status = entry["httpRequest"].get("status", 0)
            key = (entry["timestamp"], entry["insertId"])
        except (LookupError, ValueError, OverflowError) as error:
            raise Failed(
                "Cloud Logging's entries cannot be read:"
                f" {type(error).__name__}: {str(error)[:200]}"
            ) from None
        self._last = max(self._last, began)
        if key in self._known:
            return
        self._known[key] = received
        whole = float(int(took * 1000))
        slot = (revision, int(ended // self._width), status >= 500)
        self._counted[slot][whole, whole + 1] += 1

    def _points(self) -> list[Point]:
        return [
            Point(
                revision=revision,
                start=float(slot * self._width),
                end=float((slot + 1) * self._width),
                is_error=is_error,
                latencies=dict(counted),
            )
            for (revision, slot, is_error), counted in self._counted.items()
        ]


def answers_a_minute() -> int:
    """Return how many answers can be read in a minute, in all regions."""
    every = 60 / LOOKS_A_MINUTE
    new = every / (every + _AGAIN.total_seconds())
    return int(LOOKS_A_MINUTE * PAGES * _PAGE * new)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
