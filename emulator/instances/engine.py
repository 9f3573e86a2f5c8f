"""The Docker Engine API, as far as instances need it.

Source: https://docs.docker.com/reference/api/engine/. The command line is not used: variables of a
container may hold secrets, and every user of the machine can read a command line.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

_DEFAULT = "unix:///var/run/docker.sock"
_HEADER = 8
_STREAMS = {1: "stdout", 2: "stderr"}


class NoEngine(Exception):
    """No Docker engine answers; the text is a line for people."""


class EngineError(Exception):
    """The engine refused a request; the text is its message."""


def address() -> str:
    """Return the engine's address as the docker command finds it: $DOCKER_HOST or the context."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return _DEFAULT
    return shown.stdout.strip() or _DEFAULT


class Engine:
    """A connection to the engine at `address` (unix:// or tcp://); raises NoEngine for others."""

    def __init__(self, address: str) -> None:
        self._address = address
        kind, _, place = address.partition("://")
        connector: aiohttp.BaseConnector
        if kind == "unix":
            connector, base = aiohttp.UnixConnector(place, limit=0), "http://docker"
        elif kind == "tcp" and not os.environ.get("DOCKER_TLS_VERIFY"):
            connector, base = aiohttp.TCPConnector(limit=0), f"http://{place}"
        else:
            raise NoEngine(
                f"The Docker engine at {address} cannot be used. Use one at unix:// or plain tcp://."
            )
        timeout = aiohttp.ClientTimeout(total=None)
        self._http = aiohttp.ClientSession(base, connector=connector, timeout=timeout)

    async def information(self) -> dict[str, Any]:
        """Return facts about the engine (NCPU, Architecture …); raises NoEngine."""
        try:
            information: dict[str, Any] = await self.call("GET", "/info")
        except (OSError, aiohttp.ClientError, EngineError) as error:
            raise NoEngine(
                f"No Docker engine answers at {self._address} ({_one_line(error)})."
            ) from error
        return information

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, **params: str
    ) -> Any:
        """Return the answer's JSON, or None; raises EngineError, aiohttp.ClientError."""
        async with self._http.request(method, path, json=body, params=params) as response:
            await _check(response)
            text = await response.text()
        return json.loads(text) if text.strip() else None

    async def lines(
        self, method: str, path: str, headers: dict[str, str] | None = None, **params: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of an answer, each a JSON object, as they come; raises like `call`."""
        async with self._http.request(method, path, headers=headers, params=params) as response:
            await _check(response)
            async for line in response.content:
                yield json.loads(line)

    async def pull(self, reference: str, platform: str, token: str) -> None:
        """Pull an image, unless the engine has it; raises EngineError, aiohttp.ClientError.

        Source: https://docs.docker.com/reference/api/engine/version/v1.41/#section/Authentication.
        """
        try:
            await self.call("GET", f"/images/{reference}/json")
        except EngineError:
            wanted = {"fromImage": reference, "platform": platform}
            login = {"username": "oauth2accesstoken", "password": token}
            encoded = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
            headers = {"X-Registry-Auth": encoded} if token else {}
            async for line in self.lines("POST", "/images/create", headers, **wanted):
                if "error" in line:
                    raise EngineError(line["error"]) from None

    async def attach(self, container: str) -> aiohttp.ClientResponse:
        """Attach to a container before its start, so that `output` misses nothing."""
        wanted = {"stream": "1", "stdout": "1", "stderr": "1"}
        response = await self._http.post(f"/containers/{container}/attach", params=wanted)
        await _check(response)
        return response

    async def output(self, attached: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes]]:
        """Yield what a container writes until it ends: "stdout" or "stderr", and a piece of it.

        Source: https://docs.docker.com/reference/api/engine/version/v1.41/#operation/ContainerAttach
        (stream format: a byte for the stream, three zero bytes, four for the size, the piece).
        """
        try:
            while True:
                header = await attached.content.readexactly(_HEADER)
                size = int.from_bytes(header[4:], "big")
                yield _STREAMS.get(header[0], "stdout"), await attached.content.readexactly(size)
        except (EOFError, aiohttp.ClientError, OSError):
            return
        finally:
            attached.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        text = await response.text()
        try:
            message = json.loads(text)["message"]
        except (ValueError, KeyError, TypeError):
            message = text.strip() or f"status {response.status}"
        response.release()
        raise EngineError(message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
