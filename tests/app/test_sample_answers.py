"""The responses of the sample service."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from .conftest import Metadata, Service

    Start = Callable[..., Service]


def on_cloud_run(metadata: Metadata) -> dict[str, str]:
    """Return the environment that Cloud Run gives a container, with the image's commit."""
    return {
        "K_SERVICE": "guestbook",
        "K_REVISION": "guestbook-4be1f02",
        "COMMIT_SHA": "4be1f0264a7d91c3aa02",
        "GCE_METADATA_HOST": metadata.host,
    }


def test_version_says_who_answered(start: Start, metadata: Metadata) -> None:
    service = start(**on_cloud_run(metadata))
    service.wait_for("Booting worker")
    assert metadata.asked == []  # a start sends no request
    for _ in range(3):
        response = requests.get(f"{service.url}/version", timeout=60)
        assert response.json() == {
            "commit": "4be1f0264a7d91c3aa02",
            "revision": "guestbook-4be1f02",
            "service": "guestbook",
            "region": "europe-west1",
        }
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["Cache-Control"] == "no-store"
    requests.get(f"{service.url}/", timeout=60).raise_for_status()
    assert metadata.asked == ["instance/region"]


def test_outside_cloud_run_it_answers_without_a_request(start: Start, metadata: Metadata) -> None:
    service = start(GCE_METADATA_HOST=metadata.host)
    answer = requests.get(f"{service.url}/version", timeout=60).json()
    assert answer == {
        "commit": "unknown",
        "revision": "local",
        "service": "local",
        "region": "local",
    }
    assert metadata.asked == []


def test_a_metadata_server_that_never_answers_costs_one_short_wait(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        service = start(K_SERVICE="guestbook", GCE_METADATA_HOST=host)
        for _ in range(2):  # answered while the metadata server still says nothing
            response = requests.get(f"{service.url}/version", timeout=60)
            assert response.json()["region"] == "unknown"
        silent.settimeout(0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # it asked once
            silent.accept()


def test_the_page_names_the_revision_without_script(start: Start, metadata: Metadata) -> None:
    service = start(**on_cloud_run(metadata))
    response = requests.get(f"{service.url}/", timeout=60)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    visible = re.sub(r"<(script|style)>.*?</\1>", "", response.text, flags=re.DOTALL)
    for fact in ("guestbook-4be1f02", "4be1f0264a7d", "europe-west1"):
        assert f">{fact}<" in visible.replace("</i>", "")


def test_the_page_is_one_response_that_its_policy_allows(running: Service) -> None:
    """During a rollout, the next request may reach another revision, so the page loads nothing."""
    response = requests.get(f"{running.url}/", timeout=60)
    policy = response.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", response.text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]+\s(src|style|on\w+)=", response.text)
    assert all(
        link.startswith("data:") for link in re.findall(r"<link[^>]+href=\"([^\"]+)", response.text)
    )


def test_a_hostile_name_cannot_leave_its_place_in_the_page(start: Start) -> None:
    service = start(K_REVISION='"><script>alert(1)</script>')
    page = requests.get(f"{service.url}/", timeout=60).text
    assert "<script>alert" not in page


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_both_health_paths_answer_alike(running: Service, path: str) -> None:
    response = requests.get(f"{running.url}{path}", timeout=60)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [("GET", "/nowhere", 404, "Not Found"), ("POST", "/version", 405, "Method Not Allowed")],
)
def test_an_error_is_small_and_json(
    running: Service, method: str, path: str, status: int, error: str
) -> None:
    response = requests.request(method, f"{running.url}{path}", timeout=60)
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert (status == 405) == ("Allow" in response.headers)


@pytest.mark.parametrize("path", ["/", "/version", "/nowhere"])
def test_every_answer_carries_the_protective_headers(running: Service, path: str) -> None:
    headers = requests.get(f"{running.url}{path}", timeout=60).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
