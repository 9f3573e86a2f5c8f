"""JSON files. A crash leaves the old document or the new one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emulator import files


class StateInUse(Exception):
    """Another running emulator holds the state folder."""


class Store:
    """JSON documents under one folder: each is a file, with a path relative to the folder.

    A path that leaves the folder raises ApiError INVALID_ARGUMENT.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, path: str, document: Any) -> None:
        """Make `document` the content of `path`. It is on disk when this returns."""
        target = files.inside(self.root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        contents = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        files.write(target, contents.encode())

    def read(self, path: str) -> Any:
        """Return the document at `path`; None if there is none."""
        try:
            return json.loads(files.inside(self.root, path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def delete(self, path: str) -> None:
        """Remove `path`, if it exists."""
        target = files.inside(self.root, path)
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
            files.sync_folder(target.parent)

    def documents(self, folder: str) -> Iterator[Any]:
        """Yield every document anywhere under `folder`, sorted by path."""
        for path in sorted((self.root / folder).rglob("*.json")):
            yield json.loads(path.read_text(encoding="utf-8"))


def lock(folder: Path) -> int:
    """Lock the state `folder` for this process; returns the descriptor that holds the lock.

    The kernel drops the lock when the process ends, even when it is killed.

    Raises:
        StateInUse: Another process has the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StateInUse(str(folder)) from error
    return descriptor
