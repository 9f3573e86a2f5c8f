"""The registry's files.

    blobs/sha256/ab/<hex>                    contents, of manifests too, shared by all repositories
    repositories/<name>/_blobs/<hex>         the repository holds this blob (empty file)
    repositories/<name>/_manifests/<hex>     the repository holds this manifest (its media type)
    repositories/<name>/_tags/<tag>          the manifest's digest
    repositories/<name>/_referrers/<hex>/…   manifests that name <hex> as their subject
    uploads/<id>                             blobs being received; emptied at every start

Every file is written under a temporary name, flushed and renamed, and contents are written before
the files that point to them. A kill at any moment therefore leaves each pointer at its old or its
new value, and complete contents behind it. A component of a repository's name never begins with
`_`, so names cannot collide with these folders.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from emulator import files


class Storage:
    """The files under `root`, without knowledge of their meaning. Every method blocks."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._repositories = root / "repositories"
        self.uploads = root / "uploads"
        # An upload does not outlive its process: its running hash is lost.
        shutil.rmtree(self.uploads, ignore_errors=True)
        for folder in (self._blobs, self._repositories, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        """Return the path of the contents of `digest`, which need not exist."""
        hex_digits = digest.removeprefix("sha256:")
        return self._blobs / hex_digits[:2] / hex_digits

    def adopt_blob(self, written: Path, digest: str) -> None:
        """Move a file, which is already flushed, to its place among the blobs."""
        place = self.blob(digest)
        place.parent.mkdir(exist_ok=True)
        written.replace(place)
        files.sync_folder(place.parent)

    def add_blob(self, contents: bytes, digest: str) -> None:
        """Write a small blob."""
        place = self.blob(digest)
        place.parent.mkdir(exist_ok=True)
        self._write(place, contents)

    def read(self, name: str, kind: str, key: str) -> str | None:
        """Return the text of a repository's file, or None if there is none."""
        try:
            return self._place(name, kind, key).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has(self, name: str, kind: str, key: str) -> bool:
        """Return whether the repository has this file."""
        return self._place(name, kind, key).is_file()

    def written(self, name: str, kind: str, key: str) -> float:
        """Return when a repository's file was written (seconds since the epoch; 0: no file)."""
        try:
            return self._place(name, kind, key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return 0.0

    def write(self, name: str, kind: str, key: str, text: str = "") -> None:
        """Write a repository's file, completely or not at all."""
        place = self._place(name, kind, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        self._write(place, text.encode())

    def delete(self, name: str, kind: str, key: str) -> bool:
        """Delete a repository's file; return False if there was none."""
        place = self._place(name, kind, key)
        try:
            place.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        files.sync_folder(place.parent)
        return True

    def keys(self, name: str, kind: str) -> list[str]:
        """Return the names of a repository's files of one kind, unordered."""
        try:
            return os.listdir(self._repositories / name / kind)
        except FileNotFoundError:
            return []

    def names(self) -> Iterator[str]:
        """Return the repositories that hold or have held a manifest, sorted."""
        for folder in sorted(self._repositories.glob("**/_manifests")):
            yield folder.parent.relative_to(self._repositories).as_posix()

    def _place(self, name: str, kind: str, key: str) -> Path:
        path = f"{name}/{kind}/{key.removeprefix('sha256:')}"
        return files.inside(self._repositories, path)

    def _write(self, place: Path, contents: bytes) -> None:
        files.write(place, contents, beside=self.uploads / uuid.uuid4().hex)
