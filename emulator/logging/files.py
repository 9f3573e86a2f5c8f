"""Files of log entries, one JSON document per line, appended in batches and bounded in size."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

# Seconds until an entry is on disk, unless it is read before.
_PATIENCE = 0.5
# Bytes in one file. A full file becomes the older half and replaces the previous one: a log takes
# twice this space and always keeps the newest entries.
_FULL = 4 * 1024 * 1024
_OLDER = ".older"


class Files:
    """Appends to files. Only the thread of one event loop may append and flush.

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
        """Write all pending lines to disk."""
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
    """Yield the documents of a log from its end. Safe beside the thread that appends."""
    seen = 0
    for part in (path, _older(path)):
        try:
            with part.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                # The file that was read before has become the older half since.
                if number == seen:
                    return
                seen = number
                lines = file.read().splitlines()
        except FileNotFoundError:
            continue
        for line in reversed(lines):
            # A kill can leave an incomplete line.
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line)


def _older(path: Path) -> Path:
    return path.with_name(path.name + _OLDER)
