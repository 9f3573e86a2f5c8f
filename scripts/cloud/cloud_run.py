"""Cloud Run's Admin API v1 for one service in one region, and the waiting that goes with it.

Source: https://cloud.google.com/run/docs/reference/rest/v1 and the discovery document `run.v1`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from scripts.cloud.google import Conflict, Google, NotFound
from scripts.cloud.logs import text_of
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused
from scripts.release import changes, traffic
from scripts.release.changes import Change
from scripts.release.manifest import Object
from scripts.release.state import (
    State,
    condition,
    has_failed,
    is_ready,
    read_state,
    revisions_named,
)

T = TypeVar("T")
P = ParamSpec("P")

_RACES = 8
_READY_SECONDS = 600.0
_NEWEST = 50


class CloudRun:
    """One service in one region.

    Args:
        google: the APIs as its environment reaches them.
        pipeline: the service's files.
        region: one of the environment's regions.
        saw: called with the region and the service each time that the service is read.
    """

    def __init__(
        self,
        google: Google,
        pipeline: Pipeline,
        region: str,
        saw: Callable[[str, State], None] = lambda _region, _state: None,
    ) -> None:
        self.google = google
        self.pipeline = pipeline
        self.region = region
        self.name = pipeline.service
        self.project = pipeline.environment.project
        self._saw = saw
        self._parent = f"/v1/projects/{self.project}/locations/{region}"

    def service(self) -> Object | None:
        """The Knative Service, or None where it does not exist."""
        try:
            return self.google.get("run", f"{self._parent}/services/{self.name}")
        except NotFound:
            return None

    def revision(self, name: str) -> Object | None:
        """A Knative Revision, or None where it does not exist."""
        try:
            return self.google.get("run", f"{self._parent}/revisions/{name}")
        except NotFound:
            return None

    def revisions(self) -> list[Object]:
        """Every revision of the service, newest first."""
        found: list[Object] = []
        page = {"labelSelector": f"serving.knative.dev/service={self.name}"}
        while True:
            answer = self.google.get("run", f"{self._parent}/revisions", **page)
            found += answer.get("items") or []
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                break
            page["continue"] = token
        return sorted(found, key=lambda r: str(r["metadata"]["creationTimestamp"]), reverse=True)

    def relevant(self, service: Object, *names: str) -> list[Object]:
        """The revisions that decisions are about: the newest ones, and all that are named.

        A service has up to 1,000 revisions. What serves, has a tag, is being released or is known
        to be good is always among those returned, where it exists.

        Args:
            service: the Knative Service as just read.
            names: more revisions that are asked about; what cannot be one is passed over.
        """
        answer = self.google.get(
            "run",
            f"{self._parent}/revisions",
            labelSelector=f"serving.knative.dev/service={self.name}",
            limit=_NEWEST,
        )
        found: list[Object] = answer.get("items") or []
        if not (answer.get("metadata") or {}).get("continue"):
            return found
        there = {revision["metadata"]["name"] for revision in found}
        wanted = revisions_named(service) | {n for n in names if n.startswith(f"{self.name}-")}
        missing = sorted(wanted - there)
        if len(missing) > _NEWEST:
            return self.revisions()
        more = [revision for name in missing if (revision := self.revision(name))]
        return found + [one for one in more if _belongs(one, self.name)]

    def read(self, *names: str) -> State | None:
        """The service as it is now, or None where it does not exist.

        Args:
            names: revisions that are asked about, besides those that `relevant` finds.
        """
        service = self.service()
        if service is None:
            return None
        state = read_state(service, self.relevant(service, *names), self.pipeline.where)
        self._saw(self.region, state)
        return state

    def state(self, *names: str) -> State:
        """The service as it is now.

        Args:
            names: as for `read`.

        Raises:
            Failed: it does not exist.
        """
        state = self.read(*names)
        if state is None:
            raise Failed(
                f"there is no service {self.name} in {self.project}, {self.region}",
                f"./ship deliver {self.pipeline.where} makes its first release",
            )
        return state

    def put(self, service: Object, *, exists: bool) -> Object:
        """Write the whole service once; the resourceVersion in it guards against a race (I3).

        Raises:
            Conflict: somebody else wrote since it was read.
        """
        if exists:
            return self.google.write("PUT", "run", f"{self._parent}/services/{self.name}", service)
        return self.google.write("POST", "run", f"{self._parent}/services", service)

    def change(
        self, plan: Callable[Concatenate[State, P], Change], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[State, State]:
        """Read, plan, write, wait; plan again on a fresh read when somebody else wrote first.

        Args:
            plan: a function of `release`: what turns the service as read into one write.
            args, kwargs: what it takes besides the service.

        Returns:
            The service before and after. They are the same object where nothing had to change.

        Raises:
            Refused: what the plan refuses, or too many lost races.
        """
        names = [argument for argument in args if isinstance(argument, str)]
        for _ in range(_RACES):
            before = self.state(*names)
            change = plan(before, *args, **kwargs)
            if not change.moves:
                return before, before
            if self.google.dry_run:
                return before, preview(before, change)
            try:
                written = self.put(changes.apply(before, change), exists=True)
            except Conflict:
                continue
            self._wait_for_traffic(written)
            return before, self.state(*names)
        raise Refused(f"{self.name} is being changed by others all the time: nothing was changed")

    def _wait_for_traffic(self, written: Object) -> None:
        generation = written["metadata"]["generation"]
        wanted = written["spec"].get("traffic") or []

        def settled() -> bool | None:
            service = self.service() or {}
            if service.get("metadata", {}).get("generation", 0) > generation:
                return True  # somebody else's write came after ours: it is theirs to wait for
            status = service.get("status") or {}
            if status.get("observedGeneration", 0) < generation:
                return None
            routes = condition({"status": status}, "RoutesReady")
            if routes.get("status") == "False":
                raise Failed(f"Cloud Run did not move the traffic: {routes.get('message')}")
            found = status.get("traffic") or []
            moved = traffic.shares(found) == traffic.shares(wanted)
            return True if moved and traffic.tags(found) == traffic.tags(wanted) else None

        wait(settled, f"the traffic of {self.name} to move")

    def wait_until_ready(self, name: str) -> Object:
        """Wait until a revision is Ready or has failed; return it either way."""

        def decided() -> Object | None:
            revision = self.revision(name)
            if revision and (is_ready(revision) or has_failed(revision)):
                return revision
            return None

        return wait(decided, f"revision {name} to become ready")

    def tag_url(self, tag: str, revision: str) -> str:
        """The URL of a tag, as status says it: never built, never another revision's.

        Raises:
            Failed: the tag does not come to point to that revision.
        """

        def listed() -> str | None:
            status = (self.service() or {}).get("status") or {}
            for target in status.get("traffic") or []:
                if target.get("tag") == tag and target.get("revisionName") == revision:
                    url = target.get("url")
                    return str(url) if url else None
            return None

        return wait(listed, f"the URL of tag {tag}", seconds=60)

    def last_log_lines(self, revision: str, count: int = 10) -> list[str]:
        """The container's last log lines, oldest first; why there are none, where there are none.

        Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
        """
        body = {
            "resourceNames": [f"projects/{self.project}"],
            "filter": (
                f'resource.type="cloud_run_revision" AND resource.labels.revision_name="{revision}"'
                ' AND NOT logName:"%2Frequests"'
            ),
            "orderBy": "timestamp desc",
            "pageSize": count,
        }
        try:
            entries = self.google.query("logging", "/v2/entries:list", body).get("entries") or []
        except Failed as error:
            return [f"(its log could not be read: {error.message})"]
        lines = [text_of(entry) for entry in reversed(entries)]
        return [line for text in lines for line in text.splitlines()] or ["(its log is empty)"]


def _belongs(revision: Object, service: str) -> bool:
    labels = revision["metadata"].get("labels") or {}
    return bool(labels.get("serving.knative.dev/service") == service)


def preview(before: State, change: Change) -> State:
    """What the service would be after a change, for a dry run."""
    service = changes.apply(before, change)
    service["status"] = before.service.get("status") or {}
    return msgspec.structs.replace(read_state(service, [], before.where), ready=before.ready)


def wait(probe: Callable[[], T | None], what: str, seconds: float = _READY_SECONDS) -> T:
    """Ask until `probe` answers something, sooner at first than later.

    Args:
        probe: returns None to be asked again.
        what: what is being waited for, for the error.
        seconds: how long to wait at the most.

    Raises:
        Failed: it took too long.
    """
    deadline = time.monotonic() + seconds
    pause = 0.02
    while True:
        answer = probe()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"gave up after {seconds:.0f} s waiting for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 2.0)
