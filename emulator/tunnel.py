"""The one tunnel of the HTTP proxy: to Cloud Storage, as this process serves it.

gcloud reads the log of a build at https://storage.googleapis.com, whatever its settings say
(googlecloudsdk/api_lib/cloudbuild/logs.py, GCSLogTailer). It asks its proxy to CONNECT to that
host. The connection stays in this process, and becomes one of TLS to `application`. Every other
CONNECT is refused, so nothing that gcloud sends leaves this machine.

Source: https://www.rfc-editor.org/rfc/rfc9110#CONNECT.
"""

from __future__ import annotations

import asyncio
import ssl

from aiohttp import web

from emulator.routes import Handler

HOST = "storage.googleapis.com"
_TARGET = f"{HOST}:443"
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_HANDSHAKE_SECONDS = 10.0


class Tunnel:
    """A middleware that answers CONNECT, before the others: it names no host of this machine.

    Args:
        application: Serves what comes through.
        context: The server's side of TLS, for HOST.
    """

    def __init__(self, application: web.Application, context: ssl.SSLContext) -> None:
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self._context = context

    async def start(self) -> None:
        """Begin to serve; call before the first request."""
        await self._runner.setup()

    async def close(self) -> None:
        """Close the connections."""
        await self._runner.cleanup()

    @web.middleware
    async def connect(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a CONNECT; leave other requests to `handler`."""
        if request.method != "CONNECT":
            return await handler(request)
        # Web pages cannot send it at all: https://fetch.spec.whatwg.org/#forbidden-method.
        if request.raw_path.lower() != _TARGET or "Origin" in request.headers:
            text = f"The proxy connects to {_TARGET} only: nothing leaves this machine.\n"
            return web.Response(status=403, text=text)
        await self._take(request)
        return web.Response()  # aiohttp drops it: the connection is not this request's any more

    async def _take(self, request: web.Request) -> None:
        """Make a request's connection one of TLS to the application."""
        outer, transport, server = request.protocol, request.transport, self._runner.server
        if transport is None or server is None:
            return
        transport.write(_ESTABLISHED)
        outer.transport = None  # so that it does not close it
        outer.connection_lost(None)
        inner = server()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                inner,
                self._context,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
        except OSError:  # not TLS, or a client that does not trust the certificate
            transport.close()
            return
        if secured is not None:
            inner.connection_made(secured)
