"""The image with Cloud Build: the source as an archive, a build, its log as it runs, the digest.

Sources: the discovery documents cloudbuild.v1 and storage.v1, and
https://cloud.google.com/build/docs/building/build-containers.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tarfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.cloud import answers
from scripts.cloud.google import ApiError, Google
from scripts.cloud.patience import pause_after
from scripts.config.image_reference import ImageReference, bucket_of
from scripts.errors import Failed, ShipError, Unknown, UsageError

DOCKER = "gcr.io/cloud-builders/docker"
_SECONDS = 3600  # a build may take; it may wait as long before it starts
_TRIES, _BEFORE_A_TRY = 3, 2.0  # to start it; seconds
_LINES = 20  # of the log, shown when a build fails
_READER = "roles/storage.objectViewer"  # reads the log
_RUNNING = ("STATUS_UNKNOWN", "PENDING", "QUEUED", "WORKING")
# The lines that Cloud Build itself writes around the steps.
_FETCH, _ERROR = "FETCHSOURCE", "ERROR"
_HEADINGS = (_FETCH, "BUILD", "PUSH", "DONE", _ERROR)


class CloudBuild:
    """Cloud Build in one project and region.

    Args:
        google: the APIs as the environment reaches them.
        project: the project's ID.
        region: the region.
        account: the e-mail of the account that builds run as; None for the project's default.
    """

    def __init__(self, google: Google, project: str, region: str, account: str | None) -> None:
        self._google = google
        self._project = project
        self._region = region
        self._account = account
        self._bucket = bucket_of(project)

    def build(
        self,
        source: Path,
        folder: str,
        *,
        image: ImageReference,
        what: str,
        platform: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        shared: Mapping[str, tuple[Path, str]],
        earlier: Sequence[ImageReference],
        progress: Callable[[str], None],
    ) -> str:
        """Build a folder and push it.

        Args:
            source: the folder.
            folder: its path in the repository, which errors in its Dockerfile name.
            image: the image's name, with its tag.
            what: the image in human-readable form.
            platform: `os/architecture`.
            arguments: the Dockerfile's build arguments.
            labels: the image's labels.
            shared: name in the Dockerfile → a folder, and its path in the repository.
            earlier: images whose layers are reused.
            progress: called with each line of the log.

        Returns:
            The digest that Cloud Build reports for the image.

        Raises:
            ApiError: Cloud Build or Cloud Storage refuses.
            Failed: the build ends without the image; the last lines of its log are the evidence.
        """
        contexts = {name: path for name, (_, path) in shared.items()}
        packed = archive({path: place for place, path in [(source, folder), *shared.values()]})
        body = {
            "steps": [_step(folder, image, platform, arguments, labels, contexts, earlier)],
            "images": [str(image)],
            "timeout": f"{_SECONDS}s",
            "logsBucket": f"gs://{self._bucket}/log",
            "options": {"logging": "GCS_ONLY"},
            "source": {"storageSource": self._upload(packed, what)},
        }
        if self._account:
            name = f"projects/{self._project}/serviceAccounts/{self._account}"
            body["serviceAccount"] = name
        tag = f"shipway-{uuid.uuid4().hex}"
        try:
            build = self._start(body, what, tag)
            log = _Log(self._google, self._bucket, f"log/log-{build['id']}.txt", progress)
            ended = self._wait(build["id"], log)
        except BaseException:
            # Also after Ctrl-C: a build that no one waits for must not push.
            with suppress(ShipError):
                self._cancel(tag, what)
            raise
        return self._digest(ended, image, what, log)

    @property
    def _builds(self) -> str:
        return f"/v1/projects/{self._project}/locations/{self._region}/builds"

    def _upload(self, contents: bytes, what: str) -> dict[str, str]:
        """Upload an archive under a new name; return how a build names it."""
        name = f"source/{uuid.uuid4().hex}.tar.gz"
        place = f"/storage/v1/b/{self._bucket}/o"
        try:
            stored = self._google.upload(
                f"/upload{place}", contents, answers.StoredObject, what=f"the source of {what}",
                params={"uploadType": "media", "name": name, "ifGenerationMatch": "0"},
            )  # fmt: skip
        except ApiError as error:
            if error.code == 404:
                raise UsageError(
                    f"Cloud Storage has no bucket {self._bucket} for the sources of builds",
                    "./ship bootstrap creates it",
                ) from None
            if error.code != 412:
                raise
            # The first of two tries was done, although its answer was lost.
            stored = self._google.get("storage", f"{place}/{quote(name, '')}", answers.StoredObject)
        digest = base64.b64encode(hashlib.md5(contents, usedforsecurity=False).digest()).decode()
        if stored["md5Hash"] != digest:
            raise Failed(
                f"gs://{self._bucket}/{name} is not what was uploaded: its MD5 is"
                f" {stored['md5Hash']}, not {digest}",
                "try again",
            )
        return {"bucket": self._bucket, "object": name, "generation": stored["generation"]}

    def _cancel(self, tag: str, what: str) -> None:
        """Cancel the builds that have a tag."""
        for build in self._tagged(tag):
            self._google.write(
                "POST", "cloudbuild", f"{self._builds}/{build['id']}:cancel", {},
                what=f"the end of the build of {what}",
            )  # fmt: skip

    def _tagged(self, tag: str) -> list[dict[str, Any]]:
        wanted = f'tags="{tag}"'
        listed = self._google.get("cloudbuild", self._builds, answers.ListedBuilds, filter=wanted)
        return listed.get("builds") or []

    def _start(self, body: dict[str, Any], what: str, tag: str) -> dict[str, Any]:
        """Start a build. One whose answer was lost is found again by its tag."""
        for attempt in range(1, _TRIES + 1):
            try:
                started = self._google.write(
                    "POST", "cloudbuild", self._builds, {**body, "tags": [tag]},
                    shape=answers.StartedBuild, what=f"a build of {what}", operation=tag,
                )  # fmt: skip
            except Unknown:
                if found := self._tagged(tag):
                    self._google.writes[-1].outcome = "done"
                    return found[0]
                # A second build of the same source does no harm: both push the same commit.
                if attempt == _TRIES:
                    raise
                time.sleep(_BEFORE_A_TRY)
            else:
                begun: dict[str, Any] = started["metadata"]["build"]
                return begun
        raise AssertionError("no try is left")

    def _wait(self, identity: str, log: _Log) -> dict[str, Any]:
        """Wait until a build ends, and show its log meanwhile."""
        began = time.monotonic()
        # Cloud Build ends each build in time by itself; this is for an answer that never changes.
        while (waited := time.monotonic() - began) < 2 * _SECONDS + 60:
            build = self._google.get("cloudbuild", f"{self._builds}/{identity}", answers.Build)
            # After the build: when it has ended, its log is complete.
            log.read()
            if build["status"] not in _RUNNING:
                return build
            time.sleep(pause_after(waited))
        raise Failed(
            f"Cloud Build has not ended build {identity} after two hours", evidence=log.last
        )

    def _digest(self, build: dict[str, Any], image: ImageReference, what: str, log: _Log) -> str:
        status = build["status"]
        where = build.get("logUrl") or f"the build's ID is {build['id']}"
        if status == "SUCCESS":
            for pushed in (build.get("results") or {}).get("images") or []:
                if pushed.get("name") == str(image) and pushed.get("digest"):
                    return str(pushed["digest"])
            raise Failed(f"Cloud Build does not report the digest of {image}", where)
        failure = build.get("failureInfo") or {}
        reason = failure.get("detail") or build.get("statusDetail") or status
        if status == "TIMEOUT":
            reason = f"it took more than {_SECONDS // 60} minutes"
        if status == "CANCELLED":
            reason = "someone cancelled it"
        raise Failed(
            f"Cloud Build has not built {what}: {reason}",
            f"the whole log: {where}",
            evidence=log.last,
        )


class _Log:
    """The log of a build, which grows in Cloud Storage.

    Args:
        google: the APIs.
        bucket: the bucket.
        name: the object.
        progress: called with each line.
    """

    def __init__(
        self, google: Google, bucket: str, name: str, progress: Callable[[str], None]
    ) -> None:
        self._google = google
        self._bucket = bucket
        self._path = f"/storage/v1/b/{bucket}/o/{quote(name, '')}"
        self._progress = progress
        self._read = 0
        self._rest = b""
        self._lines: list[str] = []
        self._shown = True
        self._unreadable = ""

    @property
    def last(self) -> list[str]:
        """The last lines, or why there are none."""
        rest = [self._rest.decode(errors="replace")] if self._rest else []
        why = [self._unreadable] if self._unreadable else []
        return [*self._lines, *rest, *why][-_LINES:]

    def read(self) -> None:
        """Read what is new, and report its complete lines.

        A build does not need its log: if it cannot be read, that is reported once.
        """
        if self._unreadable:
            return
        try:
            new = self._google.content("storage", self._path, start=self._read)
        except ShipError as error:
            self._unreadable = f"the log of the build cannot be read: {error.message}"
            if isinstance(error, ApiError) and error.code == 403:
                self._unreadable += f"; the account needs {_READER} on gs://{self._bucket}"
            self._progress(self._unreadable)
            return
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if text in _HEADINGS:
                # Before the steps the source is fetched; after an error comes its evidence.
                self._shown = text not in (_FETCH, _ERROR)
            elif text.strip() and not text.startswith("starting build"):
                self._lines = [*self._lines, text][-_LINES:]
                if self._shown:
                    self._progress(text)


def archive(folders: Mapping[str, Path]) -> bytes:
    """Return folders as a .tar.gz that has the same bytes for the same files.

    Args:
        folders: path in the archive → the folder, with a commit's files.
    """
    packed = io.BytesIO()
    files = {
        f"{folder}/{path.relative_to(source).as_posix()}": path
        for folder, source in folders.items()
        for path in source.rglob("*")
    }
    # No name and no time in the header.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in sorted(files.items()):
            member = tar.gettarinfo(str(path), name)
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            if member.isreg():
                member.mode = 0o755 if member.mode & 0o100 else 0o644
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                member.mode = 0o755
                tar.addfile(member)
    return packed.getvalue()


def _step(
    folder: str,
    image: ImageReference,
    platform: str,
    arguments: Mapping[str, str],
    labels: Mapping[str, str],
    contexts: Mapping[str, str],
    earlier: Sequence[ImageReference],
) -> dict[str, Any]:
    """Return the step that builds: what buildx gets on this machine, as far as docker takes it.

    The layers that it makes are kept in the image itself, for the next build.
    Source: https://docs.docker.com/build/cache/backends/inline/
    """
    arguments = {**arguments, "BUILDKIT_INLINE_CACHE": "1"}
    words = [
        *("build", "--progress", "plain", "--platform", platform, "--tag", str(image)),
        *(word for k, v in arguments.items() for word in ("--build-arg", f"{k}={v}")),
        *(word for k, v in sorted(labels.items()) for word in ("--label", f"{k}={v}")),
        *(
            word
            for name, path in contexts.items()
            for word in ("--build-context", f"{name}={os.path.relpath(path, folder)}")
        ),
        *(word for one in earlier for word in ("--cache-from", str(one))),
        ".",
    ]
    return {
        "name": DOCKER,
        "dir": folder,
        "env": ["DOCKER_BUILDKIT=1"],
        # A dollar sign begins a substitution.
        # https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
        "args": [word.replace("$", "$$") for word in words],
    }
