"""Cloud Run's Admin API v1 for one service in one region, and waiting for what was written.

Source: https://cloud.google.com/run/docs/reference/rest/v1 and the discovery document `run.v1`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from typing import Literal, Never, TypeVar

import msgspec

from scripts.cloud import answers
from scripts.cloud.google import ApiError, Conflict, Google
from scripts.cloud.patience import Trouble, pause_after
from scripts.cloud.service_reads import Reads
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, ShipError, Unknown
from scripts.release import changes, traffic
from scripts.release.changes import Change
from scripts.release.manifest import Object
from scripts.release.memory import OPERATION, Event
from scripts.release.state import (
    State,
    condition,
    has_failed,
    is_ready,
    operation_of,
    tag_url,
)

T = TypeVar("T")

_ATTEMPTS = 8
_READY_SECONDS = 600.0
_LAG_SECONDS = 20.0  # a read may lag behind a write for a moment; a shorter --timeout ends it


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the read-plan-write loop.

    Attributes:
        before: the service as read for the plan; None if it did not exist.
        planned: the service to write; None if nothing had to change.
        answer: the service as the API answered the write; None if nothing was written.
    """

    before: State | None
    planned: Object | None = None
    answer: Object | None = None


class CloudRun(Reads):
    """One service in one region: what can be read of it, its changes, and waiting for them.

    Args:
        google: the APIs as its environment reaches them.
        pipeline: the service's files.
        region: one of the environment's regions.
        saw: called with the region and the service each time that the service is read.
        changed: called with each change that was written.
    """

    def __init__(
        self,
        google: Google,
        pipeline: Pipeline,
        region: str,
        saw: Callable[[str, State], None] = lambda _region, _state: None,
        changed: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        super().__init__(google, pipeline, region, saw)
        self._changed = changed

    def write(
        self,
        plan: Callable[[State | None], Object | None],
        *,
        revisions: Collection[str] = (),
        seen: State | None = None,
    ) -> Written:
        """Read, plan, write; read and plan again when someone else wrote first.

        The resourceVersion in the service guards each write (I3). If the answer to a write is lost,
        the service is read again. It has the write's ID where the write was done. Where it has
        not, the plan is made again on what was read, and written. That is right in each case: the
        write was not done; it comes later, and one of the two is refused; or it was done, and
        someone else has removed the ID since, whose change the plan then sees. A later change of
        someone else's that keeps the ID leaves the write done.

        Args:
            plan: takes the service as read, None if it does not exist; returns the service to
                write, None if nothing has to change.
            revisions: names of the revisions that the plan asks about.
            seen: the service as the caller has just read it, for the first attempt.

        Raises:
            Refused: what the plan refuses, or there were too many conflicts.
            Unknown: the answer to a write was lost, and the service cannot be read.
        """
        state = seen or self.read(revisions)
        operation = uuid.uuid4().hex
        lost: Unknown | None = None

        def attempt() -> Written:
            nonlocal state, lost
            for _ in range(_ATTEMPTS):
                planned = plan(state)
                if planned is None or self.google.dry_run:
                    return Written(before=state, planned=planned)
                before, planned = state, _marked(planned, operation)
                again = False
                try:
                    answer = self._put(planned, operation, exists=state is not None)
                    self._settle(operation, "refused")  # an earlier one can no longer be made
                    return Written(before=before, planned=planned, answer=answer)
                except Conflict:
                    pass
                except Unknown as unknown:
                    lost, again = unknown, True
                except ApiError as error:
                    # Someone else created the service in the meantime.
                    if state is not None or error.status != "ALREADY_EXISTS":
                        raise
                state = self._read_again(revisions, planned, lost)
                if state and operation_of(state.service) == operation:
                    self._settle(operation, "done")
                    return Written(before=before, planned=planned, answer=state.service)
                if lost and again:
                    raise self._not_done(lost, operation)
            raise Refused(
                f"gave up after {_ATTEMPTS} attempts: someone else keeps changing {self.name}"
            )

        return self.google.patience.persist(attempt)

    def _read_again(
        self, revisions: Collection[str], planned: Object, lost: Unknown | None
    ) -> State | None:
        """Read the service after a write that failed.

        Raises:
            Unknown: it cannot be read, and the write may have been done.
        """
        try:
            return self.read(revisions)
        except ShipError as error:
            if lost is None:
                raise
            wanted = traffic.shares(planned["spec"].get("traffic") or [])
            shares = ", ".join(f"{name} {percent} %" for name, percent in wanted.items())
            raise Unknown(
                f"it is not known whether {self.name} in {self.region} was changed"
                f" (wanted: {shares or 'its first revision'}): {_reason(lost)};"
                f" and it cannot be read: {error.message}",
                f"To see what is live: ./ship status {self.pipeline.where}",
                evidence=[*lost.evidence, *error.evidence],
            ) from error

    def _settle(self, operation: str, outcome: Literal["done", "refused"]) -> None:
        """Record how the writes of an operation ended: at most one of them was done.

        Even a conflict may be the answer to a write that was done: a proxy has sent it twice.
        """
        tries = [write for write in self.google.writes if write.operation == operation]
        for write in tries:
            if write.outcome == "unknown":
                write.outcome = "refused"
        if outcome == "done":
            tries[-1].outcome = "done"

    def _not_done(self, lost: Unknown, operation: str) -> Trouble:
        """Return the trouble of a write whose answer was lost, and that was seen not to be done."""
        cause = lost.__cause__

        def end() -> Never:
            self._settle(operation, "refused")
            raise Failed(
                f"{self.name} in {self.region} was not changed: {_reason(lost)}",
                f"To see what is live: ./ship status {self.pipeline.where}",
                evidence=lost.evidence,
            ) from cause

        after = cause.after if isinstance(cause, ApiError) else None
        return Trouble(f"not written: {_reason(lost)}", end, after)

    def _put(self, service: Object, operation: str, *, exists: bool) -> Object:
        method, path = ("PUT", f"/{self.name}") if exists else ("POST", "")
        return self.google.write(
            method,
            "run",
            f"{self._parent}/services{path}",
            service,
            shape=answers.Service,
            what=f"service {self.name} in {self.region}",
            operation=operation,
        )

    def change(
        self,
        plan: Callable[[State], Change],
        *,
        revisions: Collection[str] = (),
        seen: State | None = None,
    ) -> tuple[State, State]:
        """Make one change of traffic or memory, and wait until Cloud Run has taken it.

        Args:
            plan: takes the service as read; returns the change.
            revisions: names of the revisions that the plan asks about.
            seen: the service as the caller has just read it, for the first attempt.

        Returns:
            The service before and after. They are the same object where nothing had to change.

        Raises:
            Refused: what the plan refuses, or there were too many conflicts.
            Failed: the service does not exist, or Cloud Run does not move the traffic.
        """

        moves_traffic, event = False, None

        def planned(state: State | None) -> Object | None:
            nonlocal moves_traffic, event
            state = self._existing(state)
            change = plan(state)
            event = change.event
            moves_traffic = change.targets is not None
            return changes.apply(state, change) if change.moves else None

        done = self.write(planned, revisions=revisions, seen=seen)
        before = self._existing(done.before)
        if done.planned is None:
            if moves_traffic and not before.in_force and not self.google.dry_run:
                # An earlier command wrote it, and did not see it in force.
                service = self._settled(before.service)
                before = self._state(service, [*before.revisions.values()])
            return before, before
        if event and done.answer:
            self._changed(event)
        after = self._in_force(done.answer) if done.answer else done.planned
        service = {**after, "status": after.get("status") or before.status}
        return before, self._state(service, [*before.revisions.values()])

    def _in_force(self, written: Object) -> Object:
        try:
            return self._settled(written)
        except ShipError as error:
            raise Failed(
                f"{self.name} in {self.region} was changed, but {error.message}",
                f"To see what is live: ./ship status {self.pipeline.where}",
                evidence=error.evidence,
            ) from error

    def _settled(self, written: Object) -> Object:
        """Wait until the traffic that was written is in force; return the service."""
        generation = written["metadata"].get("generation", 0)
        wanted = written["spec"].get("traffic") or []

        def settled(service: Object) -> bool:
            if service["metadata"].get("generation", 0) > generation:
                return True  # someone else wrote after this write, and waits for their own
            status = service.get("status") or {}
            if status.get("observedGeneration", 0) < generation:
                return False
            routes = condition({"status": status}, "RoutesReady")
            if routes.get("status") == "False":
                raise Failed(f"Cloud Run did not move the traffic: {routes.get('message')}")
            found = [t for t in status.get("traffic") or [] if t.get("revisionName")]
            moved = traffic.shares(found) == traffic.shares(wanted)
            return moved and traffic.tags(found) == traffic.tags(wanted)

        if settled(written):
            return written
        read = self._unless_gone(self.service, "it")

        def probe() -> Object | None:
            service = read()
            return service if service and settled(service) else None

        return wait(probe, f"the traffic of {self.name} to move")

    def wait_until_ready(self, name: str, tell: Callable[[str], None]) -> Object:
        """Wait until a revision is Ready or has failed; return it in both cases.

        Args:
            name: the revision's name.
            tell: takes the progress; called often.

        Raises:
            Failed: it does not exist, or takes too long.
        """
        what = f"revision {name} to become ready"
        read = self._unless_gone(lambda: self.revision(name), f"revision {name}")

        def decided() -> Object | None:
            revision = read()
            if revision and (is_ready(revision) or has_failed(revision)):
                return revision
            tell(f"waiting for {what}")
            return None

        return wait(decided, what)

    def tag_url(self, tag: str, revision: str) -> str:
        """Wait for a tag's URL in the status, which is never guessed, nor another revision's.

        Raises:
            Failed: the tag does not come to point to that revision, or the service is deleted.
        """
        read = self._unless_gone(self.service, f"service {self.name}")

        def listed() -> str | None:
            return tag_url(read() or {}, tag, revision)

        return wait(listed, f"the URL of tag {tag}", seconds=60)

    def _unless_gone(
        self, read: Callable[[], Object | None], what: str
    ) -> Callable[[], Object | None]:
        """Return a function that reads as `read` does, and fails where there is lastingly nothing.

        A read that finds nothing just after a write may lag behind it.

        Args:
            read: reads something that was just written; None if it does not exist.
            what: its name for people.
        """
        longest = min(_LAG_SECONDS, self.google.patience.seconds)
        seen = time.monotonic()

        def reading() -> Object | None:
            nonlocal seen
            found = read()
            if found is not None:
                seen = time.monotonic()
            elif time.monotonic() - seen > longest:
                raise Failed(f"{what} does not exist any more: someone else has deleted it")
            return found

        return reading


def _marked(service: Object, operation: str) -> Object:
    """Return the service with the ID of the write that is about to be sent."""
    metadata = service["metadata"]
    annotations = {**(metadata.get("annotations") or {}), OPERATION: operation}
    return {**service, "metadata": {**metadata, "annotations": annotations}}


def _reason(lost: Unknown) -> str:
    return lost.__cause__.message if isinstance(lost.__cause__, ShipError) else lost.message


def wait(probe: Callable[[], T | None], what: str, seconds: float = _READY_SECONDS) -> T:
    """Call `probe` until it returns a result, with growing pauses.

    Args:
        probe: returns None to be called again.
        what: what it waits for, for the error.
        seconds: the longest time to wait.

    Raises:
        Failed: it took too long.
    """
    began = time.monotonic()
    while True:
        answer = probe()
        if answer is not None:
            return answer
        waited = time.monotonic() - began
        if waited > seconds:
            raise Failed(f"gave up after {seconds:.0f} s waiting for {what}")
        time.sleep(pause_after(waited))
