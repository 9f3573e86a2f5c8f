"""Files of log entries, one JSON document on a line: appended in batches, bounded in size."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

# An entry is on the disk this many seconds after it was written, or when somebody reads.
_PATIENCE = 0.5
# Bytes in one file. When it is full it becomes the older half, in the place of the one before: a
# log takes twice this, and never forgets the newest entries.
_FULL = 4 * 1024 * 1024
_OLDER = ".older"


class Files:
    """Appends to files and reads them back. For one event loop, whose thread appends and flushes.

    A kill loses the entries of the last half second; a stop loses none.
    """

    def __init__(self) -> None:
        self._waiting: defaultdict[Path, list[bytes]] = defaultdict(list)
        self._flush: asyncio.TimerHandle | None = None

    def append(self, path: Path, document: bytes) -> None:
        """Add a line, which is one JSON document, to the file."""
        self._waiting[path].append(document)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_PATIENCE, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        waiting, self._waiting = self._waiting, defaultdict(list)
        for path, lines in waiting.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            size = path.stat().st_size if path.exists() else 0
            fitting: list[bytes] = []
            for line in lines:
                if size >= _FULL:
                    _write(path, fitting)
                    path.replace(_older(path))
                    size, fitting = 0, []
                fitting.append(line)
                size += len(line) + 1
            _write(path, fitting)


def _write(path: Path, lines: list[bytes]) -> None:
    with path.open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


def newest_first(path: Path) -> Iterator[dict[str, Any]]:
    """The documents of a log, from its end. Safe in another thread than the one that appends."""
    seen = 0
    for part in (path, _older(path)):
        try:
            with part.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                # It has become the older half since it was read.
                if number == seen:
                    return
                seen = number
                lines = file.read().splitlines()
        except FileNotFoundError:
            continue
        for line in reversed(lines):
            # A kill can leave a line without its end.
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line)


def _older(path: Path) -> Path:
    return path.with_name(path.name + _OLDER)
