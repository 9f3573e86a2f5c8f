"""Buckets and objects.

Source: the discovery document storage.v1, https://cloud.google.com/storage/docs/buckets#naming and
https://cloud.google.com/storage/docs/objects#naming. There are no versions: an object that is
written again has a new generation, and the old one is gone. Of the checksums there is only MD5.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from emulator import clock, files
from emulator.errors import ApiError, invalid
from emulator.fields import typed
from emulator.hashes import hex_of
from emulator.names import project_number
from emulator.store import Store

Document = dict[str, Any]

BUILDS = "_cloudbuild"
"""How the name of the bucket ends that gcloud uses for the sources of a project's builds."""
_LOGS = re.compile(r"([0-9]{12})\.cloudbuild-logs\.googleusercontent\.com")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_METADATA = "object.json"
_LONGEST = 1024  # bytes of an object's name
_LARGEST = 1 << 30  # bytes of an object; at Google 5 TiB
_SETTABLE = (
    "cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType",
    "metadata",
)  # fmt: skip


class _BucketFields(TypedDict, total=False):
    """The types of a bucket's fields."""

    name: str
    location: str
    storageClass: str
    labels: dict[str, str]
    lifecycle: Document
    iamConfiguration: Document


class _ObjectFields(TypedDict, total=False):
    """The types of an object's fields."""

    name: str
    contentType: str
    contentEncoding: str
    metadata: dict[str, str]


class TooLarge(Exception):
    """An object has more bytes than fit here."""


class NotCurrent(Exception):
    """A precondition of a write does not hold."""


@dataclass(frozen=True)
class Stored:
    """An object: its metadata, as the API shows it, and the file that has its contents."""

    document: Document
    file: Path


class Receiving:
    """The contents of an object that are being received. Every method blocks.

    Args:
        bucket: The bucket.
        document: The fields that the client has sent for the object.
        expected: The generation that it must have now, 0 for none; None for any.
        file: Where the contents are written.
    """

    def __init__(self, bucket: str, document: Document, expected: int | None, file: Path) -> None:
        self.id = file.name
        self.bucket = bucket
        self.document = document
        self.expected = expected
        self.file = file
        self.size = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        file.touch(exist_ok=False)

    def write(self, piece: bytes) -> None:
        """Append bytes; raises TooLarge."""
        self.size += len(piece)
        if self.size > _LARGEST:
            self.discard()
            raise TooLarge
        with self.file.open("ab") as file:
            file.write(piece)
        self.md5.update(piece)

    def discard(self) -> None:
        """Delete the received bytes."""
        self.file.unlink(missing_ok=True)


class Buckets:
    """The buckets of every project. Methods raise ApiError; the docstrings name the status.

    Args:
        folder: Where the state is stored.
        url: The base URL of the APIs.
        is_made: Whether a project was created, so that it has only the buckets that were created.
        id_of: Returns the ID of a project that is named by its number.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        is_made: Callable[[str], bool],
        id_of: Callable[[str], str],
    ) -> None:
        self._store = Store(folder / "buckets")
        self._objects = folder / "objects"
        self._uploads = folder / "uploads"
        shutil.rmtree(self._uploads, ignore_errors=True)
        for place in (self._objects, self._uploads):
            place.mkdir(parents=True, exist_ok=True)
        self._url = url
        self._is_made = is_made
        self._id_of = id_of
        self._known: dict[str, Document] = {
            entry["bucket"]["name"]: entry for entry in self._store.documents(".")
        }
        self._receiving: dict[str, Receiving] = {}
        self._last = 0

    # Buckets

    def create(self, project: str, body: Document) -> Document:
        """Create a bucket, whose name is unique among all; INVALID_ARGUMENT, ALREADY_EXISTS."""
        sent = typed(body, _BucketFields)
        name = sent.get("name", "")
        if not _NAME.fullmatch(name):
            raise invalid(f"Invalid bucket name: '{name}'")
        if name in self._known or self._implied(name):
            raise ApiError(
                "ALREADY_EXISTS",
                "The requested bucket name is not available. Please select a different name.",
            )
        document = {**sent, **self._bucket(name, project, clock.now())}
        document["location"] = str(sent.get("location") or "US").upper()
        entry = {"project": project, "bucket": document}
        self._store.write(_file(name), entry)
        self._known[name] = entry
        return document

    def get(self, name: str) -> Document:
        """Return a bucket; NOT_FOUND."""
        if entry := self._known.get(name):
            found: Document = entry["bucket"]
            return found
        if project := self._implied(name):
            return {**self._bucket(name, project, "2026-01-01T00:00:00.000000Z"), "location": "US"}
        raise ApiError("NOT_FOUND", "The specified bucket does not exist.")

    def patch(self, name: str, body: Document) -> Document:
        """Change the fields of a bucket that the body has; INVALID_ARGUMENT, NOT_FOUND."""
        project, current = self.project(name), self.get(name)
        sent = typed(body, _BucketFields)
        document = {**current, **sent, "name": name, "updated": clock.now()}
        entry = {"project": project, "bucket": document}
        self._store.write(_file(name), entry)
        self._known[name] = entry
        return document

    def project(self, name: str) -> str:
        """Return the ID of a bucket's project; NOT_FOUND."""
        project = self._known[name]["project"] if name in self._known else self._implied(name)
        if project is None:
            raise ApiError("NOT_FOUND", "The specified bucket does not exist.")
        return str(project)

    def exists(self, name: str) -> bool:
        """Return whether there is such a bucket."""
        return name in self._known or self._implied(name) is not None

    def all(self, project: str, prefix: str) -> list[Document]:
        """Return a project's buckets whose names begin with `prefix`, sorted by name."""
        project = self._id_of(project)
        names = {name for name, entry in self._known.items() if entry["project"] == project}
        if self._implied(f"{project}{BUILDS}"):
            names.add(f"{project}{BUILDS}")
        return [self.get(name) for name in sorted(names) if name.startswith(prefix)]

    def _implied(self, name: str) -> str | None:
        """Return the project of a bucket that exists without having been created, or None.

        These are the one for the logs of builds, and gcloud's for their sources in a project that
        was not created, either.
        """
        if match := _LOGS.fullmatch(name):
            return self._id_of(match[1])
        project = name.removesuffix(BUILDS)
        named = project != name and re.fullmatch(r"[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?", project)
        return project if named and not self._is_made(project) else None

    def _bucket(self, name: str, project: str, now: str) -> Document:
        return {
            "kind": "storage#bucket",
            "id": name,
            "name": name,
            "projectNumber": project_number(project),
            "selfLink": f"{self._url}/storage/v1/b/{name}",
            "locationType": "region",
            "storageClass": "STANDARD",
            "timeCreated": now,
            "updated": now,
            "metageneration": "1",
        }

    # Objects

    def begin(self, bucket: str, body: Document, expected: int | None) -> Receiving:
        """Begin to receive an object.

        Args:
            bucket: The bucket.
            body: The object's fields, with its name.
            expected: The generation that it must have now, 0 for none; None for any.

        Raises:
            ApiError: NOT_FOUND, INVALID_ARGUMENT.
        """
        self.project(bucket)
        sent = typed(body, _ObjectFields)
        name = sent.get("name", "")
        size = len(name.encode(errors="surrogatepass"))
        if not 0 < size <= _LONGEST or "\n" in name or "\r" in name or name in (".", ".."):
            raise invalid("Invalid object name.")
        if re.search(r"[\x00-\x1f\x7f]", sent.get("contentType", "")):  # it becomes a header
            raise invalid("Invalid content type.", "contentType")
        receiving = Receiving(
            bucket,
            {"name": name, **{k: sent[k] for k in _SETTABLE if k in sent}},
            expected,
            self._uploads / uuid.uuid4().hex,
        )
        self._receiving[receiving.id] = receiving
        return receiving

    def receiving(self, upload: str) -> Receiving:
        """Return a resumable upload that is under way; NOT_FOUND."""
        if upload not in self._receiving:
            raise ApiError("NOT_FOUND", "No such upload.")
        return self._receiving[upload]

    def cancel(self, receiving: Receiving) -> None:
        """End an upload and delete what it has received."""
        self._receiving.pop(receiving.id, None)
        receiving.discard()

    def finish(self, receiving: Receiving) -> Document:
        """Make what was received an object; return its metadata.

        Raises:
            NotCurrent: The object has another generation than the upload expects.
        """
        self._receiving.pop(receiving.id, None)
        bucket, name = receiving.bucket, receiving.document["name"]
        current = self._read(bucket, name)
        generation = int(current["generation"]) if current else 0
        if receiving.expected not in (None, generation):
            receiving.discard()
            raise NotCurrent
        self._last = max(self._last + 1, time.time_ns() // 1000)
        now = clock.now()
        document = {
            "contentType": "application/octet-stream",
            **receiving.document,
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{self._last}",
            "bucket": bucket,
            "generation": str(self._last),
            "metageneration": "1",
            "storageClass": "STANDARD",
            "size": str(receiving.size),
            "md5Hash": base64.b64encode(receiving.md5.digest()).decode(),
            "timeCreated": now,
            "updated": now,
        }
        place = self._place(bucket, name)
        place.mkdir(parents=True, exist_ok=True)
        with receiving.file.open("rb") as file:
            files.sync(file)
        receiving.file.replace(place / document["generation"])
        files.write(place / _METADATA, json.dumps(document).encode())
        if current:
            (place / current["generation"]).unlink(missing_ok=True)
        return document

    def object(self, bucket: str, name: str, generation: str = "") -> Stored:
        """Return an object; NOT_FOUND, also for another generation than the current one."""
        self.project(bucket)
        document = self._read(bucket, name)
        if document is None or (generation and document["generation"] != generation):
            raise ApiError("NOT_FOUND", f"No such object: {bucket}/{name}")
        file = self._place(bucket, name) / document["generation"]
        return Stored({**document, "size": str(file.stat().st_size)}, file)

    def has(self, bucket: str, name: str) -> bool:
        """Return whether there is such an object."""
        return self._read(bucket, name) is not None

    def objects(self, bucket: str, prefix: str) -> list[Document]:
        """Return the objects of a bucket whose names begin with `prefix`, sorted; NOT_FOUND."""
        self.project(bucket)
        found = map(_document, (self._objects / hex_of(bucket)).glob("*"))
        named = [one for one in found if one and one["name"].startswith(prefix)]
        return sorted(named, key=lambda one: str(one["name"]))

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object; NOT_FOUND."""
        self.object(bucket, name)
        shutil.rmtree(self._place(bucket, name))

    def append(self, bucket: str, name: str, piece: bytes) -> None:
        """Append to an object, as Cloud Build does to a log; begins it if there is none."""
        if self._read(bucket, name) is None:
            log = self.begin(bucket, {"name": name, "contentType": "text/plain"}, None)
            self.finish(log)
        with self.object(bucket, name).file.open("ab") as file:
            file.write(piece)

    def _place(self, bucket: str, name: str) -> Path:
        return self._objects / hex_of(bucket) / hex_of(name)

    def _read(self, bucket: str, name: str) -> Document | None:
        return _document(self._place(bucket, name))


def _document(place: Path) -> Document | None:
    """Return the metadata of the object in a folder; None if there is none."""
    try:
        found: Document = json.loads((place / _METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def _file(bucket: str) -> str:
    return f"{hex_of(bucket)}.json"
