"""The headers that the front end removes and adds, of requests and of responses."""

from __future__ import annotations

import secrets

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from emulator.router.batches import TRACE

# Source: RFC 9110 section 7.6.1 (and the older names that RFC 2616 section 13.5.1 lists).
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_WEBSOCKET = frozenset(
    {
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)

REPLACED = "replaced-headers"
"""The key of a request's headers that replace its own."""


def for_instance(request: web.BaseRequest, *, upgrade: bool = False) -> CIMultiDict[str]:
    """Return a request's headers for an instance: with its origin and its trace added.

    Source: https://cloud.google.com/trace/docs/trace-context (both header formats).
    """
    headers = _passed_on(
        request.headers, frozenset({"expect"} | (_WEBSOCKET if upgrade else set()))
    )
    headers.update(request.get(REPLACED, {}))
    caller = request.remote or "127.0.0.1"
    before = headers.get("X-Forwarded-For")
    headers["X-Forwarded-For"] = f"{before}, {caller}" if before else caller
    headers["X-Forwarded-Proto"] = request.headers.get("X-Forwarded-Proto", request.scheme)
    headers["Forwarded"] = f'for="{caller}";proto={request.scheme}'
    request[TRACE] = _add_trace(headers)
    return headers


def _add_trace(headers: CIMultiDict[str]) -> str:
    """Add a request to its caller's trace, or to a new one; returns the trace's ID."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    parent = headers.get("traceparent", "").split("-")
    if len(parent) == 4:
        trace, span = parent[1], parent[2]
    elif "X-Cloud-Trace-Context" in headers:
        trace = headers["X-Cloud-Trace-Context"].partition("/")[0]
    if "X-Cloud-Trace-Context" not in headers:
        try:
            headers["X-Cloud-Trace-Context"] = f"{trace}/{int(span, 16)};o=1"
        except ValueError:
            headers["X-Cloud-Trace-Context"] = f"{trace};o=1"
    if "traceparent" not in headers:
        headers["traceparent"] = f"00-{trace}-{span}-01"
    return trace


def for_caller(received: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers of an instance's response as Google's front end passes them on."""
    headers = _passed_on(received, frozenset())
    headers["Server"] = "Google Frontend"
    return headers


def _passed_on(received: CIMultiDictProxy[str], dropped: frozenset[str]) -> CIMultiDict[str]:
    named = {
        name.strip().lower()
        for value in received.getall("Connection", ())
        for name in value.split(",")
    }
    unwanted = _HOP_BY_HOP | dropped | named
    return CIMultiDict(
        (name, value) for name, value in received.items() if name.lower() not in unwanted
    )
