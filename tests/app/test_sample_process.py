"""How the process starts, logs and stops: Cloud Run's container contract."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

if TYPE_CHECKING:
    from .conftest import Metadata, Service

    Start = Callable[..., Service]

APP = Path(__file__).resolve().parents[2] / "app"
TRACE = "0123456789abcdef0123456789abcdef"

# The sample has no route that fails or waits, so these tests add some to it.
EXTENDED = """
import logging, pathlib, time
from web import create_app
app = create_app()
inner = app.wsgi_app
def outer(environ, start_response):
    if environ["PATH_INFO"] == "/bare":
        raise RuntimeError("before Flask")
    return inner(environ, start_response)
app.wsgi_app = outer
@app.get("/fails")
def fails():
    raise ValueError("the cause\\nin two lines")
@app.get("/notes")
def notes():
    logging.getLogger("shop").warning("low stock: %d", 3)
    return "noted"
@app.get("/slow")
def slow():
    print('{"message": "in flight"}', flush=True)
    deadline = time.monotonic() + 100
    while not pathlib.Path(__file__).with_name("finish").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return "finished"
"""


def extended(start: Start, folder: Path, **env: str) -> Service:
    (folder / "extended.py").write_text(EXTENDED)
    return start("extended:app", **env)


def test_an_exception_is_one_error_entry_with_its_stack_trace(
    start: Start, tmp_path: Path, metadata: Metadata
) -> None:
    service = extended(start, tmp_path, K_SERVICE="shop", GCE_METADATA_HOST=metadata.host)
    headers = {"X-Cloud-Trace-Context": f"{TRACE}/255;o=1", "Authorization": "Bearer s3cret"}
    response = requests.get(f"{service.url}/fails?token=s3cret", headers=headers, timeout=60)
    assert (response.status_code, response.json()) == (500, {"error": "Internal Server Error"})
    (entry,) = [entry for entry in service.entries() if entry["severity"] == "ERROR"]
    assert "Traceback (most recent call last):" in entry["message"]
    assert "ValueError: the cause\nin two lines" in entry["message"]
    assert entry["httpRequest"] == {"requestMethod": "GET", "requestUrl": "/fails"}
    assert entry["logging.googleapis.com/trace"] == f"projects/acme-prod/traces/{TRACE}"
    assert entry["logging.googleapis.com/spanId"] == "00000000000000ff"
    assert entry["logging.googleapis.com/trace_sampled"] is True
    assert "s3cret" not in service.log.read_text()


def test_an_entry_of_a_request_carries_its_trace(
    start: Start, tmp_path: Path, metadata: Metadata
) -> None:
    service = extended(start, tmp_path, K_SERVICE="shop", GCE_METADATA_HOST=metadata.host)
    for context in (f"{TRACE.upper()}", "nonsense", f"{TRACE}/1;o=0"):
        requests.get(
            f"{service.url}/notes", headers={"X-Cloud-Trace-Context": context}, timeout=60
        ).raise_for_status()
    first, second, third = (entry for entry in service.entries() if entry["logger"] == "shop")
    assert (first["severity"], first["message"]) == ("WARNING", "low stock: 3")
    assert first["logging.googleapis.com/trace"] == f"projects/acme-prod/traces/{TRACE}"
    assert "logging.googleapis.com/spanId" not in first
    assert not [field for field in second if field.startswith("logging.googleapis.com/")]
    assert third["logging.googleapis.com/trace_sampled"] is False
    assert metadata.asked == ["project/project-id"]


def test_outside_cloud_run_there_is_no_trace(
    start: Start, tmp_path: Path, metadata: Metadata
) -> None:
    service = extended(start, tmp_path, GCE_METADATA_HOST=metadata.host)
    requests.get(
        f"{service.url}/notes", headers={"X-Cloud-Trace-Context": f"{TRACE}/1;o=1"}, timeout=60
    )
    (entry,) = [entry for entry in service.entries() if entry["logger"] == "shop"]
    assert "logging.googleapis.com/trace" not in entry
    assert metadata.asked == []


def test_an_unknown_project_costs_only_the_trace(start: Start, tmp_path: Path) -> None:
    service = extended(start, tmp_path, K_SERVICE="shop", GCE_METADATA_HOST="127.0.0.1:1")
    requests.get(
        f"{service.url}/notes", headers={"X-Cloud-Trace-Context": f"{TRACE}/1;o=1"}, timeout=60
    )
    (entry,) = [entry for entry in service.entries() if entry["logger"] == "shop"]
    assert "logging.googleapis.com/trace" not in entry


def test_a_request_that_succeeds_leaves_no_line(start: Start) -> None:
    service = start()
    before = len(service.wait_for("Booting worker").splitlines())
    requests.get(f"{service.url}/", timeout=60)
    assert len(service.entries()) == before


def test_gunicorns_own_log_is_json_too(start: Start) -> None:
    service = start()
    requests.get(f"{service.url}/health", timeout=60)
    service.terminate()
    assert service.wait() == 0
    entries = service.entries()
    assert {entry["logger"] for entry in entries} == {"gunicorn.error"}
    assert all({"severity", "message", "time"} <= entry.keys() for entry in entries)


def test_an_invalid_header_is_refused_and_not_logged(start: Start) -> None:
    service = start()
    url = urlsplit(service.url)
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization Bearer s3cret\r\n\r\n")
        assert b"400 Bad Request" in connection.recv(4096)
    service.terminate()
    service.wait()
    assert "s3cret" not in service.log.read_text()
    service.entries()


def test_an_exception_outside_flask_is_logged_without_the_query(
    start: Start, tmp_path: Path
) -> None:
    service = extended(start, tmp_path)
    response = requests.get(f"{service.url}/bare?token=s3cret", timeout=60)
    assert response.status_code == 500
    (entry,) = [entry for entry in service.entries() if entry["severity"] == "ERROR"]
    assert entry["message"].startswith("Error handling request GET /bare\nTraceback")
    assert "s3cret" not in service.log.read_text()


def test_a_service_that_cannot_start_logs_the_reason_in_one_entry(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("raise LookupError('no such setting: DATABASE_URL')\n")
    service = start("broken:app")
    assert service.wait() != 0
    (entry,) = service.entries()
    assert entry["severity"] == "CRITICAL"
    assert "LookupError: no such setting: DATABASE_URL" in entry["message"]


def test_sigterm_finishes_the_request_in_flight(start: Start, tmp_path: Path) -> None:
    # So long that it is the end of the request that ends the service.
    service = extended(start, tmp_path, GUNICORN_CMD_ARGS="--graceful-timeout 1000")
    url = service.url
    answers: list[str] = []
    request = threading.Thread(
        target=lambda: answers.append(requests.get(f"{url}/slow", timeout=60).text)
    )
    request.start()
    service.wait_for("in flight")
    service.terminate()
    service.wait_for("Handling signal: term")
    assert service.process.poll() is None  # it waits for the request
    (tmp_path / "finish").touch()
    assert service.wait() == 0
    request.join(timeout=60)
    assert answers == ["finished"]


def test_sigterm_ends_a_request_that_never_ends(start: Start, tmp_path: Path) -> None:
    service = extended(start, tmp_path, GUNICORN_CMD_ARGS="--graceful-timeout 1")
    url = urlsplit(service.url)
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        service.wait_for("in flight")
        started = time.monotonic()
        service.terminate()
        assert service.wait() == 0
        assert time.monotonic() - started >= 1


def test_times_fit_those_of_cloud_run() -> None:
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "--print-config"]
    done = subprocess.run(
        [*command, "web:create_app()"], cwd=APP, capture_output=True, text=True, check=True
    )
    settings = dict(re.findall(r"^(\w+)\s+= (.*)$", done.stdout, flags=re.MULTILINE))
    assert int(settings["graceful_timeout"]) < 10  # then comes SIGKILL
    assert int(settings["keepalive"]) > 600  # Google's front ends reuse a connection as long
    assert int(settings["timeout"]) == 0  # an instance without CPU cannot report that it lives
