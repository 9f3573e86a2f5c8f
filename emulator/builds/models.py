"""Builds: their documents, from QUEUED to their end. `work` does what they ask for.

Source: the discovery document cloudbuild.v1 and https://cloud.google.com/build/docs/api/reference/rest/v1/projects.builds.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypedDict
from urllib.parse import quote

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.fields import check_known, typed
from emulator.names import project_number
from emulator.operations import TYPES
from emulator.store import Store

Document = dict[str, Any]

MARK = "b11db11d"
"""How the IDs of builds begin: Cloud Run's operations have paths of the same form as theirs."""
_AT_ONCE = 4  # builds; the others are QUEUED
_ENDS = ("SUCCESS", "FAILURE", "INTERNAL_ERROR", "TIMEOUT", "CANCELLED", "EXPIRED")
_METADATA = f"{TYPES}/google.devtools.cloudbuild.v1.BuildOperationMetadata"
_RESPONSE = f"{TYPES}/google.devtools.cloudbuild.v1.Build"
_TAG = re.compile(r"[\w][\w.-]{0,127}")
_FILTER = re.compile(r'(tags|status)\s*[=:]\s*"?([\w.-]+)"?')
_LONGEST = 86_400.0  # seconds


class _Step(TypedDict, total=False):
    name: str
    args: list[str]
    env: list[str]
    dir: str
    id: str
    entrypoint: str
    script: str


class _StorageSource(TypedDict, total=False):
    bucket: str
    object: str
    generation: str


class _Source(TypedDict, total=False):
    storageSource: _StorageSource


class _Options(TypedDict, total=False):
    logging: str


class _Fields(TypedDict, total=False):
    """The types of the fields that are read here."""

    steps: list[_Step]
    source: _Source
    images: list[str]
    tags: list[str]
    timeout: str
    substitutions: dict[str, str]
    serviceAccount: str
    logsBucket: str
    options: _Options


_KNOWN = frozenset(_Fields.__annotations__) | {
    "approval", "artifacts", "availableSecrets", "dependencies", "gitConfig", "queueTtl", "secrets",
}  # fmt: skip
_UNSUPPORTED = ("artifacts", "availableSecrets", "dependencies", "gitConfig", "secrets")


class Cancelled(Exception):
    """A build was cancelled while it ran, or has run for too long."""


class Handle:
    """A build that runs: what stops it, and why."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.why = "CANCELLED"
        self._ends: Callable[[], None] | None = None

    def check(self) -> None:
        """Raise Cancelled if the build is to end."""
        if self.stopped.is_set():
            raise Cancelled

    def stop(self, why: str) -> None:
        """End the build with this status."""
        if not self.stopped.is_set():
            self.why = why
            self.stopped.set()
            if self._ends:
                self._ends()

    @contextmanager
    def ending(self, ends: Callable[[], None]) -> Iterator[None]:
        """Call `ends` if the build is to end meanwhile, or already."""
        self._ends = ends
        try:
            if self.stopped.is_set():
                ends()
            yield
        finally:
            self._ends = None


class Worker(Protocol):
    """What does the work of builds. It blocks."""

    def run(self, build: Document, handle: Handle) -> Document:
        """Do what a build asks for, and write its log.

        Returns:
            The fields that its document gets: `status`, `results`, `failureInfo`.

        Raises:
            Cancelled: It was stopped.
        """


class Builds:
    """The builds of every project and region. A project is named by its ID or its number."""

    def __init__(self, store: Store, worker: Worker, id_of: Callable[[str], str], url: str) -> None:
        self._store = store
        self._worker = worker
        self._id_of = id_of
        self._url = url
        self._lock = threading.Lock()
        self._places = threading.Semaphore(_AT_ONCE)
        self._handles: dict[str, Handle] = {}
        self._known: dict[str, Document] = {}
        for build in store.documents("."):
            self._known[build["id"]] = build
            if build["status"] not in _ENDS:
                detail = "The local Cloud Run was stopped while the build ran."
                self._change(build["id"], status="INTERNAL_ERROR", statusDetail=detail)

    def create(self, project: str, region: str, body: Document) -> Document:
        """Start a build; return its operation. Raises ApiError INVALID_ARGUMENT."""
        sent = typed(body, _Fields)
        check_known(sent, _KNOWN)
        _check(sent)
        project, identity = self._id_of(project), f"{MARK}{str(uuid.uuid4())[len(MARK) :]}"
        number = project_number(project)
        build = {
            "timeout": "600s",
            "queueTtl": "3600s",
            "logsBucket": f"gs://{number}.cloudbuild-logs.googleusercontent.com",
            **sent,
            "id": identity,
            "name": f"projects/{number}/locations/{region}/builds/{identity}",
            "projectId": project,
            "status": "QUEUED",
            "createTime": clock.now(),
        }
        build["options"] = {"logging": "LEGACY", **sent.get("options", {})}
        if sent.get("images"):
            build["artifacts"] = {"images": sent["images"]}
        bucket, log = log_of(build)
        build["logUrl"] = f"{self._url}/storage/v1/b/{bucket}/o/{quote(log, '')}?alt=media"
        self._handles[identity] = handle = Handle()
        with self._lock:
            self._keep(build)
        # A thread for each: one that waits costs little, and a build may take minutes.
        threading.Thread(target=self._run, args=(identity, handle), daemon=True).start()
        return operation(build)

    def get(self, project: str, region: str, identity: str) -> Document:
        """Return a build; raises ApiError NOT_FOUND."""
        found = self._known.get(identity)
        place = f"projects/{project_number(self._id_of(project))}/locations/{region}/"
        if found is None or not found["name"].startswith(place):
            raise ApiError("NOT_FOUND", "Requested entity was not found.")
        return found

    def all(self, project: str, region: str, wanted: str) -> list[Document]:
        """Return a region's builds, the newest first.

        Args:
            project: The project.
            region: The region; `-` for all.
            wanted: A filter: `tags="…"` or `status="…"`, joined with AND; "" for all.

        Raises:
            ApiError: INVALID_ARGUMENT.
        """
        place = f"projects/{project_number(self._id_of(project))}/locations/"
        place += "" if region == "-" else f"{region}/"
        found = [one for one in self._known.values() if one["name"].startswith(place)]
        for part in filter(None, re.split(r"\s+AND\s+", wanted.strip())):
            match = _FILTER.fullmatch(part)
            if match is None:
                raise invalid("Expected tags or status.", "filter")
            field, value = match[1], match[2]
            found = [one for one in found if value in (one.get(field) or "")]
        return sorted(found, key=lambda one: str(one["createTime"]), reverse=True)

    def cancel(self, project: str, region: str, identity: str) -> Document:
        """Cancel a build; raises ApiError NOT_FOUND, FAILED_PRECONDITION."""
        build = self.get(project, region, identity)
        if build["status"] in _ENDS:
            raise ApiError("FAILED_PRECONDITION", "Cannot cancel a build that is not in progress.")
        if handle := self._handles.get(identity):  # else its end is being written
            handle.stop("CANCELLED")
        return self._change(identity, status="CANCELLED", finishTime=clock.now())

    def close(self) -> None:
        """Stop every build."""
        for handle in list(self._handles.values()):
            handle.stop("INTERNAL_ERROR")

    def _run(self, identity: str, handle: Handle) -> None:
        build = self._known[identity]
        clock_ = threading.Timer(clock.seconds(build["timeout"]), handle.stop, ["TIMEOUT"])
        clock_.daemon = True
        with self._places:
            clock_.start()
            try:
                handle.check()
                build = self._change(identity, status="WORKING", startTime=clock.now())
                ended = self._worker.run(build, handle)
            except Cancelled:
                ended = {"status": handle.why}
            except Exception as error:
                ended = {"status": "INTERNAL_ERROR", "statusDetail": f"{error!r}"[:1000]}
            finally:
                clock_.cancel()
                self._handles.pop(identity, None)
        self._change(identity, **ended, finishTime=clock.now())

    def _change(self, identity: str, **fields: Any) -> Document:
        """Change a build, unless it has ended."""
        with self._lock:
            current = self._known[identity]
            return current if current["status"] in _ENDS else self._keep({**current, **fields})

    def _keep(self, build: Document) -> Document:
        if build["status"] != "WORKING":  # a restart ends those that run, whatever they say
            self._store.write(f"{build['id']}.json", build)
        self._known[build["id"]] = build
        return build


class _Submitted(TypedDict, total=False):
    """The types of a request to Cloud Run to build a source."""

    storageSource: _StorageSource
    imageUri: str
    buildpackBuild: Document
    dockerBuild: Document
    tags: list[str]
    serviceAccount: str


def submitted(body: Document) -> Document:
    """Return the build that a request to Cloud Run stands for; raises ApiError INVALID_ARGUMENT.

    Source: the discovery document run.v2, GoogleCloudRunV2SubmitBuildRequest. An account that it
    names builds here as the default one does: the log needs no bucket of its own.
    """
    sent = typed(body, _Submitted)
    image = sent.get("imageUri")
    if not image or not sent.get("storageSource"):
        raise invalid("The image and the source are required.", "image_uri")
    step: Document = {"name": "gcr.io/cloud-builders/docker", "args": ["build", "-t", image, "."]}
    if "buildpackBuild" in sent:
        step = {"name": "gcr.io/k8s-skaffold/pack", "args": ["build", image]}
    return {
        "source": {"storageSource": sent["storageSource"]},
        "steps": [step],
        "images": [image],
        "tags": sent.get("tags", []),
    }


def log_of(build: Document) -> tuple[str, str]:
    """Return the bucket of a build's log, and its object there."""
    bucket, _, folder = build["logsBucket"].removeprefix("gs://").partition("/")
    name = f"log-{build['id']}.txt"
    return bucket, f"{folder.strip('/')}/{name}" if folder.strip("/") else name


def operation(build: Document) -> Document:
    """Return the operation that a build is."""
    region = build["name"].split("/")[3]
    found: Document = {
        "name": f"projects/{build['projectId']}/locations/{region}/operations/{build['id']}",
        "metadata": {"@type": _METADATA, "build": build},
    }
    if build["status"] not in _ENDS:
        return found
    if build["status"] == "SUCCESS":
        return {**found, "done": True, "response": {"@type": _RESPONSE, **build}}
    message = (build.get("failureInfo") or {}).get("detail") or f"Build ended: {build['status']}"
    return {**found, "done": True, "error": {"code": 2, "message": message}}


def _check(sent: Document) -> None:
    if not sent.get("steps"):
        raise invalid("invalid build: at least one step is required.")
    for name in _UNSUPPORTED:
        if sent.get(name):
            raise invalid(f"The local Cloud Build does not know {name}.", name)
    source = sent.get("source", {})
    if source and not source.get("storageSource"):
        raise invalid("The local Cloud Build takes a storageSource only.", "source")
    for tag in sent.get("tags", []):
        if not _TAG.fullmatch(tag):
            raise invalid(f"invalid build tag '{tag}'.", "tags")
    try:
        seconds = clock.seconds(sent.get("timeout", "600s"))
    except ValueError:
        raise invalid("Expected a duration such as 600s.", "timeout") from None
    if not 0 < seconds <= _LONGEST:
        raise invalid("invalid build: the timeout may be 24 h.", "timeout")
    bucket = sent.get("logsBucket", "")
    if bucket and not re.fullmatch(r"(gs://)?[a-z0-9][a-z0-9._-]+(/[^\n\r]*)?", bucket):
        raise invalid(f"invalid logs bucket '{bucket}'.", "logsBucket")
    options = sent.get("options", {})
    apart = options.get("logging") in ("CLOUD_LOGGING_ONLY", "NONE")
    if sent.get("serviceAccount") and not (
        bucket or apart or options.get("defaultLogsBucketBehavior")
    ):
        raise invalid(
            "if 'build.service_account' is specified, the build must either (a) specify"
            " 'build.logs_bucket', (b) use the REGIONAL_USER_OWNED_BUCKET"
            " build.options.default_logs_bucket_behavior option, or (c) use either"
            " CLOUD_LOGGING_ONLY / NONE logging options"
        )
