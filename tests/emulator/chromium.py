"""A real Chromium without a window, which the tests steer over its DevTools protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.emulator.cloud_run_help import eventually

_NAME = next((name for name in ("chromium", "google-chrome") if shutil.which(name)), None)
needs_chromium = pytest.mark.skipif(_NAME is None, reason="left out: Chromium is not installed")


class Tab:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._socket = socket
        self._number = 0

    async def open(self, url: str) -> None:
        """Go to an address as if the user typed it, and wait until its page is there."""
        await self._send("Page.enable")
        await self._send("Page.navigate", url=url)
        while (await self._socket.receive_json(timeout=60)).get("method") != "Page.loadEventFired":
            pass

    async def run(self, script: str) -> Any:
        """Run the body of an asynchronous function in the page; return its result."""
        source = f"(async () => {{ {script} }})()"
        answer = await self._send(
            "Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def _send(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while (answer := await self._socket.receive_json(timeout=60)).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]


@asynccontextmanager
async def started(folder: Path, *arguments: str) -> AsyncIterator[Tab]:
    """Start Chromium with a new profile in `folder`; stop it on leaving."""
    assert _NAME
    # Chromium's own sandbox does not work as root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [
            *(_NAME, "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", *sandbox),
            *("--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={folder}"),
            *(*arguments, "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        file = folder / "DevToolsActivePort"
        port = eventually(lambda: file.exists() and file.read_text().partition("\n")[0])
        async with aiohttp.ClientSession() as http:
            async with http.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                address = (await answer.json())["webSocketDebuggerUrl"]
            async with http.ws_connect(address, max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        process.wait(timeout=60)
