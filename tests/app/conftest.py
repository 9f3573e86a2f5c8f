"""Runs the sample service as Cloud Run would: its own command, in a process, driven over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

APP = Path(__file__).resolve().parents[2] / "app"
PATIENCE = 60.0  # seconds; only a broken service ever takes so long


@pytest.fixture(scope="session", autouse=True)
def sample() -> None:
    """Skip these tests in a fork whose app/ is another service."""
    if not (APP / "web/pages.py").is_file():
        pytest.skip("left out: app/ is no longer the sample")


class Service:
    """A gunicorn with the sample service, on a free port, its log in a file."""

    def __init__(self, log: Path, application: str, path: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "start.py", "--config", "gunicorn.conf.py", application],
                cwd=APP,
                # No other variables: everything that the service needs is listed here.
                env={"PORT": "0", "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def url(self) -> str:
        """Return its base URL, as soon as its log shows the port."""
        found = re.search(r"http://0\.0\.0\.0:(\d+)", self.wait_for("Listening at"))
        assert found
        return f"http://127.0.0.1:{found[1]}"

    def wait_for(self, text: str) -> str:
        """Return the log once it contains `text`; fail with the log if it never does."""
        deadline = time.monotonic() + PATIENCE
        while text not in (log := self.log.read_text()):
            alive = self.process.poll() is None
            assert (alive and time.monotonic() < deadline) or text in self.log.read_text(), log
            time.sleep(0.01)
        return log

    def entries(self) -> list[dict[str, Any]]:
        """Return the log, each line parsed: a line that is not JSON fails the test."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def terminate(self) -> None:
        """Send SIGTERM to gunicorn's master, as Cloud Run does to process 1."""
        os.kill(self.process.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(timeout=PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a function that starts services: `application` from tmp_path or app/, variables."""
    started: list[Service] = []

    def start(application: str = "web:create_app()", **env: str) -> Service:
        log = tmp_path / f"service-{len(started)}.log"
        started.append(Service(log, application, tmp_path, env))
        return started[-1]

    yield start
    for service in started:
        service.process.kill()
        service.process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Yield a service without variables, for all tests that only ask it."""
    folder = tmp_path_factory.mktemp("running")
    service = Service(folder / "service.log", "web:create_app()", folder, {})
    yield service
    service.process.kill()
    service.process.wait()


class Metadata(ThreadingHTTPServer):
    """Cloud Run's metadata server: the requests that it got, and its answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MetadataHandler)
        self.asked: list[str] = []
        self.host = f"127.0.0.1:{self.server_port}"


class _MetadataHandler(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        path = self.path.removeprefix("/computeMetadata/v1/")
        self.server.asked.append(path)
        known = {
            "project/project-id": "acme-prod",
            "instance/region": "projects/1234/regions/europe-west1",
        }
        # As the real one does: without this header it refuses.
        allowed = self.headers["Metadata-Flavor"] == "Google" and path in known
        self.send_response(200 if allowed else 403)
        self.end_headers()
        self.wfile.write(known[path].encode() if allowed else b"")

    def log_message(self, *args: object) -> None:
        """Say nothing: pytest's output is for tests."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    """Yield a metadata server for one test."""
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
