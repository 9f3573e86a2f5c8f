"""Measures requests, and reports them in batches to logging and monitoring."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

from aiohttp import web

from emulator.instances.launch import Launch
from emulator.names import Key
from emulator.served import Listener, Served

# Set on a request on its way: the revision that is to answer it, and its trace.
LAUNCH = web.RequestKey("LAUNCH", Launch)
TRACE = web.RequestKey("TRACE", str)
# The status of a request whose caller went away before the answer; Google's front end counts it as
# this, too (recollected, not documented).
_CALLER_GONE = 499
# Seconds from an answer to its report, unless someone asks earlier.
_PATIENCE = 0.5


class RequestBatches:
    """Requests that were served and are not reported yet. A kill loses them.

    `listeners` are called with (revision, service, requests). A batch makes one request cost a few
    microseconds.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners
        self._waiting: defaultdict[tuple[Key, str], list[Served]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, launch: Launch, served: Served) -> None:
        """Take a request that was served."""
        self._waiting[launch.revision, launch.service].append(served)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self.flush)

    def flush(self) -> None:
        """Report every request now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, defaultdict(list)
        for (revision, service), batch in waiting.items():
            for listener in self._listeners:
                listener(revision, service, batch)

    async def observed(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        request: web.BaseRequest,
    ) -> web.StreamResponse:
        """Answer a request as `answer` does, and take it if a revision was chosen for it."""
        received, started = time.time(), time.perf_counter()
        status, size = _CALLER_GONE, 0
        try:
            response = await answer(request)
            status = response.status
            if not response.prepared:
                # The server would do it, but too late to time and measure it here.
                try:
                    await response.prepare(request)
                    await response.write_eof()
                except ConnectionError:  # the server tries again, and closes the connection
                    status = _CALLER_GONE
            size = response.body_length
            return response
        finally:
            launch = request.get(LAUNCH)
            if launch is not None:
                headers = request.headers
                self.add(
                    launch,
                    Served(
                        received=received,
                        seconds=time.perf_counter() - started,
                        method=request.method,
                        host=request.host,
                        path=request.raw_path,
                        version=request.version,
                        status=status,
                        request_size=request.content_length,
                        response_size=size,
                        user_agent=headers.get("User-Agent"),
                        referer=headers.get("Referer"),
                        remote=request.remote,
                        trace=request.get(TRACE),
                    ),
                )
