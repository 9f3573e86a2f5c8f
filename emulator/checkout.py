"""The checkout that a local Cloud Run belongs to: its commands find it, those of others do not.

A checkout has at most one, which holds a lock of `.shipway/up.lock`. The kernel drops the lock when
the process ends, even when it is killed. So `.shipway/up.json`, which has the address, counts only
while the lock is held. The locked file keeps the port for the next start, so that addresses stay.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from emulator import files
from emulator.permissions import LOCAL
from emulator.routes import Route

HEADER = "Shipway-Checkout"
_LOOK_SECONDS = 2.0
# A command that looks whether one is up holds the lock for a moment.
_LOCK_SECONDS = 1.0


class UpAlready(Exception):
    """Another local Cloud Run of the checkout is up; the text names the checkout."""


class Checkout:
    """A checkout's folder, locked for this process.

    Args:
        folder: The folder, which holds `pipelines/`.

    Raises:
        UpAlready: Another process has the lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._own = self.folder / ".shipway"
        self._own.mkdir(parents=True, exist_ok=True)
        self._file = self._own / "up.json"
        self._lock_file = self._own / "up.lock"
        self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    os.close(self._lock)
                    raise UpAlready(str(self.folder)) from None
                time.sleep(0.02)
        self._file.unlink(missing_ok=True)

    @property
    def last_port(self) -> int:
        """The port of the last time; 0 if there was none."""
        text = os.pread(self._lock, 5, 0).decode(errors="replace")
        return int(text) if re.fullmatch("[0-9]+ *", text) and int(text) < 1 << 16 else 0

    def publish(self, url: str, settings: dict[str, Any]) -> None:
        """Write the address and the settings that it was started with, for the commands."""
        about = {"url": url, "folder": str(self.folder), "pid": os.getpid(), **settings}
        files.write(self._file, json.dumps(about, default=str).encode(), mode=0o600)
        os.pwrite(self._lock, f"{url.rpartition(':')[2]:5}".encode(), 0)

    async def gone(self) -> None:
        """Wait until the checkout was deleted or moved: no command can find this process then."""
        ours = os.fstat(self._lock)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                found = self._lock_file.stat()
            except OSError:
                return
            if (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino):
                return

    async def sign(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Name the checkout in each answer (a signal handler)."""
        response.headers[HEADER] = quote(str(self.folder))

    def withdraw(self) -> None:
        """Take the address back: the process ends."""
        self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)


def routes(stop: asyncio.Event) -> list[Route]:
    """Return the route that ends this process."""

    async def end(_request: web.Request) -> web.Response:
        stop.set()
        return web.json_response({})

    return [Route("POST", "/_local/stop", end, LOCAL)]
