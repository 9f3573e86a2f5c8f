"""An HTTP relay to the local Cloud Run: counts, delays, refuses, loses and spoils answers."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_OF_ONE_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length")


@dataclass(frozen=True)
class Exchange:
    """One request and when it began and was answered, in seconds of the monotonic clock."""

    method: str
    path: str
    began: float
    ended: float


@dataclass(frozen=True)
class Spoiled:
    """What becomes of one answer.

    Attributes:
        how: "closed": the connection is closed instead. "cut": half of the body comes. "half": half
            of the JSON comes as if it were all. Otherwise the whole body of the answer.
        status: the HTTP status of the answer; the server's own unless given.
        done: whether the server gets the request before.
        headers: more headers.
    """

    how: str = ""
    status: int = 0
    done: bool = True
    headers: tuple[tuple[str, str], ...] = ()


class Relay:
    """A relay on a free port of this machine to the server at `server`; use it with `with`.

    Args:
        server: its base URL.
        delay: how much later each answer comes, in seconds.
        refuse: called with method and path; returns an error's HTTP status and its name at Google,
            such as (409, "ABORTED"), to answer instead of the server, or None.
        spoil: called with method and path; returns what becomes of the answer, or None.

    Attributes:
        url: the base URL for clients.
        exchanges: the exchanges, in the order of the answers.
    """

    def __init__(
        self,
        server: str,
        *,
        delay: float = 0,
        refuse: Callable[[str, str], tuple[int, str] | None] = lambda _method, _path: None,
        spoil: Callable[[str, str], Spoiled | None] = lambda _method, _path: None,
    ) -> None:
        self.exchanges: list[Exchange] = []
        self._host = urlsplit(server).netloc
        self._delay = delay
        self._refuse = refuse
        self._spoil = spoil
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def in_turn(self) -> int:
        """Return the number of round trips in the longest chain without overlaps."""
        depths: list[tuple[float, int]] = []
        for one in sorted(self.exchanges, key=lambda exchange: exchange.began):
            before = [depth for ended, depth in depths if ended <= one.began]
            depths.append((one.ended, 1 + max(before, default=0)))
        return max((depth for _, depth in depths), default=0)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self.upstream = http.client.HTTPConnection(relay._host, timeout=60)

            def finish(self) -> None:
                super().finish()
                self.upstream.close()

            def relay(self) -> None:
                began = time.monotonic()
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                spoiled = relay._spoil(self.command, self.path)
                if spoiled and not spoiled.done:
                    status, headers, answer = 200, [], b""
                else:
                    status, headers, answer = self.ask(body)
                time.sleep(relay._delay)
                relay.exchanges.append(Exchange(self.command, self.path, began, time.monotonic()))
                sent = len(answer)
                if spoiled:
                    status = spoiled.status or status
                    headers = [*headers, *spoiled.headers]
                    if spoiled.how == "closed":
                        self.close_connection = True
                        return
                    sent //= 2 if spoiled.how == "cut" else 1
                    if spoiled.how == "half":
                        answer = answer[: sent // 2]
                    elif spoiled.how != "cut":
                        answer = spoiled.how.encode()
                    self.close_connection = spoiled.how == "cut"
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in _OF_ONE_CONNECTION:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[:sent] if spoiled and spoiled.how == "cut" else answer)

            def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                if refused := relay._refuse(self.command, self.path):
                    code, name = refused
                    error: dict[str, Any] = {"code": code, "status": name, "message": "refused"}
                    kind = [("Content-Type", "application/json")]
                    return code, kind, json.dumps({"error": error}).encode()
                self.upstream.request(self.command, self.path, body, dict(self.headers))
                answer = self.upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = relay

            def log_message(self, *_: object) -> None:
                pass

        return Handler
