"""Sends a request to an instance and its answer back, both as streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from emulator.instances.runtime import Instance
from emulator.router import headers

# Servers close idle connections, gunicorn after 2 seconds: ours are closed before that.
_KEEP_IDLE = 1.0
_LONGEST_HEADER = 64 * 1024
_CHUNK = 64 * 1024

# Sent again on a new connection if a kept one turns out to be closed.
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})


_Opening = AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse[bool]]


class InstanceGone(Exception):
    """The instance could not be reached; nothing of the request was sent to it."""


class BadInstance(Exception):
    """The instance broke the connection before it answered."""


class _Attempt:
    """Whether a part of a request was sent to an instance."""

    sent = False


async def _note_sent(_session: aiohttp.ClientSession, context: Any, _params: Any) -> None:
    # A WebSocket has no attempt: it is opened on a connection of its own, once.
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.sent = True


class Proxy:
    """Sends requests on to instances."""

    def __init__(self) -> None:
        self._kept = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_IDLE))
        self._fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True))

    async def forward(
        self, request: web.BaseRequest, instance: Instance, timeout: float
    ) -> web.StreamResponse:
        """Send a request to an instance, and its answer back, within `timeout` seconds.

        Raises:
            InstanceGone: The instance could not be reached.
            BadInstance: The instance broke the connection.
            TimeoutError: The time was over before the answer began.
        """
        response: web.StreamResponse | None = None
        attempt = _Attempt()
        try:
            async with asyncio.timeout(timeout):
                async with await self._send(request, instance, attempt) as received:
                    response = _response(request, received)
                    return await _copy(request, received, response)
        except aiohttp.ClientConnectorError as error:
            # The session may have sent it on a kept connection before, and the instance crashed.
            raise (BadInstance if attempt.sent else InstanceGone) from error
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if response is None or not response.prepared:
                if isinstance(error, TimeoutError):
                    raise
                raise BadInstance from error
            # Too late for another status: an abort shows the caller that the answer is not
            # complete.
            if request.transport is not None:
                request.transport.abort()
            return response

    async def _send(
        self, request: web.BaseRequest, instance: Instance, attempt: _Attempt
    ) -> aiohttp.ClientResponse:
        has_body = request.body_exists
        # A request that must not be sent twice needs a new connection: a kept one may be closed.
        session = self._kept if request.method in _REPEATABLE and not has_body else self._fresh
        sent = headers.for_instance(request)
        return await session.request(
            request.method,
            _url(instance, request),
            headers=sent,
            data=_body(request) if has_body else None,
            allow_redirects=False,
            trace_request_ctx=attempt,
        )

    async def close(self) -> None:
        """Close every connection to instances."""
        await self._kept.close()
        await self._fresh.close()

    def websocket(
        self, request: web.BaseRequest, instance: Instance, protocols: tuple[str, ...]
    ) -> _Opening:
        """Open a WebSocket to `instance` for `request`; a context manager."""
        return self._fresh.ws_connect(
            _url(instance, request),
            headers=headers.for_instance(request, upgrade=True),
            protocols=protocols,
            autoping=False,
            autoclose=False,
            max_msg_size=0,
        )


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note_sent)
    return aiohttp.ClientSession(
        trace_configs=[trace],
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
    )


def _url(instance: Instance, request: web.BaseRequest) -> URL:
    """Return the instance's URL for a request: its path unchanged, also out of a whole URL."""
    target = request.raw_path
    path = target if target.startswith("/") else request.rel_url.raw_path_qs
    return URL(f"{instance.url}/{path.removeprefix('/')}", encoded=True)


async def _body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the request's body as it comes; a caller that waits for 100 Continue gets it."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    while chunk := await request.content.readany():
        yield chunk


def _response(request: web.BaseRequest, received: aiohttp.ClientResponse) -> web.StreamResponse:
    passed_on = headers.for_caller(received.headers)
    if received.content.is_eof() and request.method != "HEAD":
        # The answer is complete: one write.
        passed_on.popall("Content-Length", None)
        body = received.content.read_nowait() if received.content.total_bytes else b""
        return web.Response(
            status=received.status, reason=received.reason, headers=passed_on, body=body
        )
    return web.StreamResponse(status=received.status, reason=received.reason, headers=passed_on)


async def _copy(
    request: web.BaseRequest, received: aiohttp.ClientResponse, response: web.StreamResponse
) -> web.StreamResponse:
    if isinstance(response, web.Response):
        return response
    await response.prepare(request)
    if request.method != "HEAD":
        async for chunk in received.content.iter_any():
            await response.write(chunk)
    await response.write_eof()
    return response
