"""JSON files that are either the old document or the new one, whenever the process dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class StateInUse(Exception):
    """Another running emulator holds the state folder."""


class Store:
    """JSON documents under one folder, each in a file of its own, addressed by relative path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, path: str, document: Any) -> None:
        """Make `document` the content of `path` on disk; it is durable when this returns."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)

    def read(self, path: str) -> Any:
        """The document at `path`, or None when there is none."""
        try:
            return json.loads((self.root / path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def delete(self, path: str) -> None:
        """Remove `path`; no error when it is not there."""
        target = self.root / path
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
            _sync_folder(target.parent)

    def documents(self, folder: str) -> Iterator[Any]:
        """Every document anywhere under `folder`, in the order of their paths."""
        for path in sorted((self.root / folder).rglob("*.json")):
            yield json.loads(path.read_text(encoding="utf-8"))


def lock(folder: Path) -> int:
    """Take the state `folder` for this process; returns the descriptor that holds the lock.

    The kernel lets go of it when the process ends, however it ends.
    Raises StateInUse when another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StateInUse(str(folder)) from error
    return descriptor


def _sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
