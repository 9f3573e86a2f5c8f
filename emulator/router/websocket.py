"""WebSockets: opens both ends, then passes messages on as they come."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import WSMsgType, web

from emulator.instances.runtime import Instance
from emulator.router.proxy import BadInstance, InstanceGone, Proxy


def is_websocket(request: web.BaseRequest) -> bool:
    """Return whether a request asks to become a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def forward(
    proxy: Proxy, request: web.BaseRequest, instance: Instance, timeout: float
) -> web.StreamResponse:
    """Connect the caller with `instance` for at most `timeout` seconds.

    If the instance refuses the WebSocket, the caller gets its status.

    Raises:
        InstanceGone: The instance could not be reached.
        BadInstance: The instance broke the connection.
    """
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    protocols = tuple(name.strip() for name in offered.split(",") if name.strip())
    try:
        async with proxy.websocket(request, instance, protocols) as inner:
            outer = web.WebSocketResponse(
                protocols=(inner.protocol,) if inner.protocol else (),
                autoping=False,
                autoclose=False,
                max_msg_size=0,
                compress=False,
            )
            await outer.prepare(request)
            await _join(outer, inner, timeout)
            return outer
    except aiohttp.WSServerHandshakeError as refusal:
        return web.Response(status=refusal.status, headers={"Server": "Google Frontend"})
    except aiohttp.ClientConnectorError as error:
        raise InstanceGone from error
    except aiohttp.ClientError as error:
        raise BadInstance from error


async def _join(
    outer: web.WebSocketResponse, inner: aiohttp.ClientWebSocketResponse[bool], timeout: float
) -> None:
    ways = [
        asyncio.create_task(_pump(outer, inner)),
        asyncio.create_task(_pump(inner, outer)),
    ]
    try:
        await asyncio.wait(ways, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await outer.close()
        await inner.close()


_Side = web.WebSocketResponse | aiohttp.ClientWebSocketResponse[bool]


async def _pump(source: _Side, sink: _Side) -> None:
    while True:
        message = await source.receive()
        if message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is WSMsgType.PING:
            await sink.ping(message.data)
        elif message.type is WSMsgType.PONG:
            await sink.pong(message.data)
        elif message.type is WSMsgType.CLOSE:
            await sink.close(code=message.data or 1000, message=(message.extra or "").encode())
            return
        else:
            return
