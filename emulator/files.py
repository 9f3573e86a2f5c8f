"""Atomic writes of files: a crash leaves the old or the new contents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from emulator.errors import invalid

# Bytes: the most that file systems take, less `.tmp`.
_LONGEST_NAME = 251


def inside(folder: Path, path: str) -> Path:
    """Return a path within a folder, of names that requests gave.

    The rooms check these names by their own rules. This is the second line of defence.

    Args:
        folder: The folder.
        path: A relative path. Its parts are separated by slashes.

    Raises:
        ApiError: INVALID_ARGUMENT; the path leaves the folder, or has a part that names no file.
    """
    for part in path.split("/"):
        if part in ("", ".", "..") or "\0" in part:
            raise invalid("Malformed resource name.")
        if len(part.encode(errors="surrogateescape")) > _LONGEST_NAME:
            raise invalid("The resource name is too long.")
    return folder / path


def write(place: Path, contents: bytes, *, beside: Path | None = None, mode: int = 0o666) -> None:
    """Make `contents` the content of a file. They are on disk when this returns.

    Args:
        place: The file, in an existing folder.
        contents: The whole content.
        beside: Where to write before the rename, on the same disk; by default beside `place`.
        mode: The permissions of the file, less the process's umask.
    """
    fresh = beside or place.with_name(f"{place.name}.tmp")
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(opened, "wb") as file:
        file.write(contents)
        sync(file)
    fresh.replace(place)
    sync_folder(place.parent)


def sync(file: IO[bytes]) -> None:
    """Put what was written to an open file on disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the names of a folder on disk: a rename or a deletion lasts from then on."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
