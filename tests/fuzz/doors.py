"""Raw requests to a server, and what has to hold after each of them."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.conftest import LocalCloudRun

DEADLINE = 100.0  # seconds, for one answer: it only ends a hang
MOST_WORK = 10.0  # seconds of CPU, for one answer
MOST_MEMORY = 700  # MiB


class Answer(NamedTuple):
    """An answer; status 0 stands for a connection that the server closed."""

    status: int
    headers: dict[str, str]
    body: bytes


def request_of(
    method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes | None, host: str
) -> bytes:
    """Write a request; a header given here replaces the one of its name."""
    given = {name.lower() for name, _ in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    own = [("Host", host), ("Connection", "close")]
    if body is not None:
        own.append(("Content-Length", str(len(body))))
    lines += [f"{name}: {value}" for name, value in own if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")


def send(url: str, request: bytes, *, whole: bool = True) -> Answer:
    """Send bytes to a server; return its answer, within the deadline.

    Args:
        url: the server.
        request: the bytes.
        whole: whether they are a whole request. Otherwise the client then closes its side.
    """
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=DEADLINE) as link:
        with contextlib.suppress(ConnectionError):
            link.sendall(request)
            if not whole:
                link.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(link, method=request.partition(b" ")[0].decode("latin-1"))
        try:
            answer.begin()
            body = answer.read(1 << 24)
        except (http.client.HTTPException, ConnectionError):
            return Answer(0, {}, b"")
        except TimeoutError:
            raise AssertionError(f"no answer within {DEADLINE} s") from None
        return Answer(answer.status, dict(answer.getheaders()), body)


class Watched:
    """A local Cloud Run that may not suffer from any request."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self.cloud_run = cloud_run
        self.url = cloud_run.url
        self._read = 0
        # The first instance makes these.
        rooms = {cloud_run.state / name for name in ("instances", "logs")}
        self._beside = self._around() | rooms

    def _around(self) -> set[Path]:
        """Return what is beside the state folder, and the folders of rooms in it."""
        state = self.cloud_run.state
        return {*state.parent.parent.glob("*"), *state.parent.glob("*"), *state.glob("*")}

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Check after a request that the server is well, and has written where it may."""
        began = work(self.cloud_run.process.pid)
        yield
        assert self.cloud_run.process.poll() is None, "the server has ended"
        took = work(self.cloud_run.process.pid) - began
        assert took < MOST_WORK, f"it took {took:.1f} s of CPU"
        log = self.cloud_run.log.read_text(errors="replace")
        news, self._read = log[self._read :], len(log)
        assert "Traceback" not in news, news[-4000:]
        assert memory(self.cloud_run.process.pid) < MOST_MEMORY
        fresh = self._around() - self._beside
        assert not fresh, fresh


def memory(process: int) -> int:
    """Return a process's memory in MiB; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def work(process: int) -> float:
    """Return the seconds of CPU that a process has used; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
