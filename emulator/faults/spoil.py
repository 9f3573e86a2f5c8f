"""What a caller gets instead of an API's answer."""

from __future__ import annotations

import asyncio
import http
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from emulator import routes
from emulator.faults.calls import Call, Calls, Strike
from emulator.permissions import On
from emulator.routes import Handler

# Source of the names: https://cloud.google.com/apis/design/errors (google.rpc.Code).
_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Proxy</body></html>\n"
_PIECES = 50

Deed = Callable[[], Awaitable[web.StreamResponse]]


def middleware(calls: Calls) -> Middleware:
    """Return the middleware that notes each call, and spoils those that a fault strikes."""

    @web.middleware
    async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = routes.asked(request)
        if asks is not None and asks.on is On.THIS_MACHINE:
            return await handler(request)
        api = asks.api.partition(".")[0] if asks else ""
        call, strike = calls.begin(request.method, request.path_qs, api)

        async def deed() -> web.StreamResponse:
            try:
                answer = await handler(request)
            except web.HTTPException as error:
                answer = error
            call.status = answer.status
            return answer

        if strike is not None:
            return await _spoiled(request, call, strike, deed)
        answer = await deed()
        _remember(calls, call, answer)
        return answer

    return spoil


def _remember(calls: Calls, call: Call, answer: web.StreamResponse) -> None:
    """Keep the answers that `stale` will repeat."""
    for strike in calls.strikes.values():
        fault = strike.fault
        body = _body(answer)
        if fault.name == "stale" and body and fault.matches(call.method, call.path, call.api):
            kind = {"Content-Type": answer.headers.get("Content-Type", "")}
            strike.answers[call.path] = (answer.status, body, kind)


async def _spoiled(
    request: web.Request, call: Call, strike: Strike, deed: Deed
) -> web.StreamResponse:
    """Answer a call that a fault strikes."""
    fault = strike.fault
    match fault.name:
        case "lost":
            await deed()
            return _closed(request)
        case "cut" | "trickle":
            return await _in_pieces(request, strike, await deed())
        case "slow":
            await asyncio.sleep(fault.seconds)
            return await deed()
        case "hang":
            return await _hung(request, strike, deed)
        case "drop-upload":
            await request.content.readany()
            return _reset(request)
        case "stale":
            return (
                _again(strike.answers[call.path]) if call.path in strike.answers else await deed()
            )
    if fault.done:
        await deed()
    if fault.name == "reset":
        return _reset(request)
    return _answer(request, strike)


def _answer(request: web.Request, strike: Strike) -> web.Response:
    """Return an answer that has nothing to do with the call."""
    fault = strike.fault
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    json_kind = {**headers, "Content-Type": "application/json"}
    code = fault.code or (503 if fault.name == "status" else 200)
    match fault.name:
        case "html":
            kind = {**headers, "Content-Type": "text/html; charset=utf-8"}
            return web.Response(status=code, text=_PAGE, headers=kind)
        case "empty":
            return web.Response(status=code, headers=json_kind)
        case "no-fields":
            return web.Response(status=code, text="{}", headers=json_kind)
    name = _NAMES.get(code, "UNKNOWN")
    message = f"{http.HTTPStatus(code).phrase if code in _KNOWN else code}: a fault was asked for."
    if request.path.startswith("/v2/") and not request.path.startswith("/v2/entries"):
        error: object = {"errors": [{"code": name, "message": message}]}
    else:
        error = {"error": {"code": code, "message": message, "status": name}}
    return web.Response(status=code, text=json.dumps(error), headers=json_kind)


_KNOWN = {one.value for one in http.HTTPStatus}


def _again(kept: tuple[int, bytes, dict[str, str]]) -> web.Response:
    status, body, headers = kept
    return web.Response(status=status, body=body, headers=headers)


async def _hung(request: web.Request, strike: Strike, deed: Deed) -> web.StreamResponse:
    """Wait for the end of the fault. What the caller no longer waits for is then not done."""
    answer = await deed() if strike.fault.done else None
    await strike.ended.wait()
    if request.transport is None or request.transport.is_closing():
        return answer or web.Response()
    return answer or await deed()


async def _in_pieces(
    request: web.Request, strike: Strike, answer: web.StreamResponse
) -> web.StreamResponse:
    """Send half of an answer and close the connection, or all of it in small pieces."""
    body = _body(answer)
    if not body:
        return answer if strike.fault.name == "trickle" else _closed(request)
    sent = web.StreamResponse(status=answer.status, headers=answer.headers)
    sent.content_length = len(body)
    await sent.prepare(request)
    if strike.fault.name == "cut":
        await sent.write(body[: len(body) // 2])
        _close(request)
        return sent
    size = max(1, len(body) // _PIECES)
    for at in range(0, len(body), size):
        await sent.write(body[at : at + size])
        await asyncio.sleep(strike.fault.seconds * size / len(body))
    return sent


def _body(answer: web.StreamResponse) -> bytes:
    """Return the body of an answer; b"" if it is empty or comes from a file."""
    body = getattr(answer, "body", b"")
    return bytes(body) if isinstance(body, bytes | bytearray) else b""


def _reset(request: web.Request) -> web.Response:
    """Reset the connection, as a host that has gone does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def _closed(request: web.Request) -> web.Response:
    """Close the connection without an answer."""
    _close(request)
    return web.Response()


def _close(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()
