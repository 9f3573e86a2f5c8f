"""The registry's files.

    blobs/sha256/ab/<hex>                    contents, of manifests too, shared by all repositories
    repositories/<name>/_blobs/<hex>         the repository holds this blob (empty file)
    repositories/<name>/_manifests/<hex>     the repository holds this manifest (its media type)
    repositories/<name>/_tags/<tag>          the manifest's digest
    repositories/<name>/_referrers/<hex>/…   manifests that name <hex> as their subject
    uploads/<id>                             what is on its way; emptied at every start

Every file is written beside its place, flushed to the disk and renamed, contents before what
points to them. So a kill at any moment leaves each pointer as it was before or as it is after, and
whole contents behind it. A component of a repository's name never begins with `_`: names cannot
collide with these.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


class Storage:
    """Reads and writes the files under `root`; knows nothing of what they mean. Blocking."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._repositories = root / "repositories"
        self.uploads = root / "uploads"
        # An upload does not outlive the process that took it: its running hash is gone.
        shutil.rmtree(self.uploads, ignore_errors=True)
        for folder in (self._blobs, self._repositories, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        """Where the contents of `digest` lie, or would lie."""
        hex_digits = digest.removeprefix("sha256:")
        return self._blobs / hex_digits[:2] / hex_digits

    def adopt_blob(self, written: Path, digest: str) -> None:
        """Move a file, already flushed, to its place among the blobs."""
        place = self.blob(digest)
        place.parent.mkdir(exist_ok=True)
        written.replace(place)
        _sync_folder(place.parent)

    def add_blob(self, contents: bytes, digest: str) -> None:
        """Write a small blob."""
        place = self.blob(digest)
        place.parent.mkdir(exist_ok=True)
        self._write(place, contents)

    def read(self, name: str, kind: str, key: str) -> str | None:
        """The text of a repository's file, None where there is none."""
        try:
            return self._place(name, kind, key).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has(self, name: str, kind: str, key: str) -> bool:
        """Whether the repository has that file."""
        return self._place(name, kind, key).is_file()

    def written(self, name: str, kind: str, key: str) -> float:
        """When a repository's file was written, in seconds since the epoch; 0 if there is none."""
        try:
            return self._place(name, kind, key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return 0.0

    def write(self, name: str, kind: str, key: str, text: str = "") -> None:
        """Write a repository's file, whole or not at all."""
        place = self._place(name, kind, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        self._write(place, text.encode())

    def delete(self, name: str, kind: str, key: str) -> bool:
        """Delete a repository's file; False where there was none."""
        place = self._place(name, kind, key)
        try:
            place.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        _sync_folder(place.parent)
        return True

    def keys(self, name: str, kind: str) -> list[str]:
        """The names of a repository's files of one kind, in no order."""
        try:
            return os.listdir(self._repositories / name / kind)
        except FileNotFoundError:
            return []

    def names(self) -> Iterator[str]:
        """The repositories that hold, or have held, a manifest, sorted."""
        for folder in sorted(self._repositories.glob("**/_manifests")):
            yield folder.parent.relative_to(self._repositories).as_posix()

    def _place(self, name: str, kind: str, key: str) -> Path:
        return self._repositories / name / kind / key.removeprefix("sha256:")

    def _write(self, place: Path, contents: bytes) -> None:
        beside = self.uploads / uuid.uuid4().hex
        with beside.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
        _sync_folder(place.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename or a deletion last: the entry is in the folder's own file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
