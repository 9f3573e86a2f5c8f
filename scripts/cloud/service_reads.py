"""Read one service of Cloud Run's Admin API v1 in one region: itself, its revisions, its log.

Source: https://cloud.google.com/run/docs/reference/rest/v1 and the discovery document `run.v1`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from scripts.cloud import answers
from scripts.cloud.google import Google, NotFound
from scripts.cloud.logs import end_of, text_of
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed
from scripts.release.manifest import Object
from scripts.release.state import (
    State,
    read_state,
    revisions_in_use,
    revisions_that_matter,
)

_NEWEST = 50
_FEW = 10
_AT_ONCE = 16
_LOG_ENTRIES = 200


class Reads:
    """What can be read of one service in one region.

    Args:
        google: the APIs as its environment reaches them.
        pipeline: the service's files.
        region: one of the environment's regions.
        saw: called with the region and the service each time that the service is read.

    Attributes:
        is_newer: whether a commit (full SHA) is newer than the one being released.
    """

    def __init__(
        self,
        google: Google,
        pipeline: Pipeline,
        region: str,
        saw: Callable[[str, State], None],
    ) -> None:
        self.google = google
        self.pipeline = pipeline
        self.region = region
        self.name = pipeline.service
        self.project = pipeline.environment.project
        self.is_newer: Callable[[str], bool] = lambda _: False
        self._saw = saw
        self._parent = f"/v1/projects/{self.project}/locations/{region}"

    def service(self) -> Object | None:
        """Read the Knative Service; None if it does not exist."""
        try:
            return self.google.get("run", f"{self._parent}/services/{self.name}", answers.Service)
        except NotFound:
            return None

    def revision(self, name: str) -> Object | None:
        """Read a Knative Revision; None if it does not exist."""
        try:
            return self.google.get("run", f"{self._parent}/revisions/{name}", answers.OneRevision)
        except NotFound:
            return None

    def _page(self, **parameters: str | int) -> tuple[list[Object], str]:
        """Read revisions of the service; return them and the token of the next page, if any."""
        selector = f"serving.knative.dev/service={self.name}"
        answer = self.google.get(
            "run",
            f"{self._parent}/revisions",
            answers.RevisionList,
            labelSelector=selector,
            **parameters,
        )
        token = (answer.get("metadata") or {}).get("continue") or ""
        return answer.get("items") or [], token

    def _every_revision(self) -> tuple[list[Object], str]:
        found, token = self._page()
        while token:
            more, token = self._page(**{"continue": token})
            found += more
        return found, ""

    def read(
        self, revisions: Collection[str] = (), *, every_revision: bool = False
    ) -> State | None:
        """Read the service and its revisions, at the same time; None if it does not exist.

        A service has up to 1,000 revisions. The newest ones are read. Those that serve, the
        candidate and the known good ones are always among them, where they exist; older ones cost
        one more round trip.

        Args:
            revisions: names of more revisions to read; names of other services are skipped.
            every_revision: whether to read all revisions.
        """
        page = self._every_revision if every_revision else lambda: self._page(limit=_NEWEST)
        service, (found, token) = self.google.at_once(self.service, page)
        if service is None:
            return None
        wanted = revisions_that_matter(service)
        if token:
            wanted |= {name for name in revisions if name.startswith(f"{self.name}-")}
        else:
            # The list should have all. It may be older than the service, or wrong.
            wanted |= revisions_in_use(service)
        missing = sorted(wanted - {revision["metadata"]["name"] for revision in found})
        asked = dict(zip(missing, self._revisions(missing), strict=True))
        found = found + [one for one in asked.values() if one and _belongs(one, self.name)]
        # One that was just created may not be there yet.
        created = (service.get("status") or {}).get("latestCreatedRevisionName")
        gone = {name for name, one in asked.items() if one is None and name != created}
        return self._state(service, found, gone)

    def glance(self) -> State | None:
        """Read the service and its newest revisions, in two requests; None if it does not exist.

        For many services at once. A revision that is older than those read is unknown.
        """
        newest = partial(self._page, limit=_FEW)
        service, (found, _) = self.google.at_once(self.service, newest)
        return None if service is None else self._state(service, found)

    def _revisions(self, names: Sequence[str]) -> list[Object | None]:
        """Read revisions by name, some at a time."""
        found: list[Object | None] = []
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            found += self.google.at_once(*(partial(self.revision, name) for name in some))
        return found

    def _state(self, service: Object, revisions: list[Object], gone: Collection[str] = ()) -> State:
        newest_first = sorted(
            revisions, key=lambda r: str(r["metadata"]["creationTimestamp"]), reverse=True
        )
        where = self.pipeline.where
        state = read_state(service, newest_first, where, gone=gone, is_newer=self.is_newer)
        self._saw(self.region, state)
        return state

    def state(self, revisions: Collection[str] = (), *, every_revision: bool = False) -> State:
        """Read the service as `read` does.

        Raises:
            Failed: it does not exist.
        """
        return self._existing(self.read(revisions, every_revision=every_revision))

    def _existing(self, state: State | None) -> State:
        if state is None:
            raise Failed(
                f"there is no service {self.name} in {self.project}, {self.region}",
                f"For its first release: ./ship deliver {self.pipeline.where}",
            )
        return state

    def last_log_lines(self, revision: str) -> list[str]:
        """Read the container's last log lines, oldest first, or one line with the reason for none.

        Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
        """
        body = {
            "resourceNames": [f"projects/{self.project}"],
            "filter": (
                f'resource.type="cloud_run_revision" AND resource.labels.revision_name="{revision}"'
                ' AND NOT logName:"%2Frequests"'
            ),
            "orderBy": "timestamp desc",
            "pageSize": _LOG_ENTRIES,
        }
        try:
            answer = self.google.query("logging", "/v2/entries:list", body, answers.Entries)
        except Failed as error:
            return [f"(its log could not be read: {error.message})"]
        lines = [text_of(entry) for entry in reversed(answer.get("entries") or [])]
        return end_of([line for text in lines for line in text.splitlines()])


def _belongs(revision: Object, service: str) -> bool:
    labels = revision["metadata"].get("labels") or {}
    return bool(labels.get("serving.knative.dev/service") == service)
