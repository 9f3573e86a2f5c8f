"""The registry client: against the local Cloud Run, and against registries that misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from scripts.cloud.patience import Patience
from scripts.cloud.referrers import Referrers
from scripts.cloud.registry import Registry
from scripts.cloud.session import Session
from scripts.errors import Failed, ShipError, UsageError
from tests.conftest import LocalCloudRun
from tests.emulator.registry_help import Client

INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def http_session() -> Iterator[Session]:
    with Session(Patience(2)) as session:
        session.trust_env = False
        yield session


@pytest.fixture
def registry(local_cloud_run: LocalCloudRun, http_session: Session) -> Registry:
    return Registry(local_cloud_run.url, http_session)


def test_an_image_that_does_not_exist(registry: Registry) -> None:
    assert registry.resolve("acme/client/none", "v1") is None


def test_resolve(registry: Registry, local_cloud_run: LocalCloudRun) -> None:
    image = Client(local_cloud_run.url, "acme/client/one").image("v1", labels={"a": "b"})
    for reference in ("v1", image["digest"]):
        found = registry.resolve("acme/client/one", reference)
        assert found is not None
        assert found.digest == image["digest"]
        assert found.media_type == image["mediaType"]
        assert found.platforms == ("linux/amd64",)
        assert found.labels["a"] == "b"


def test_an_index_has_the_platforms_of_its_images(
    registry: Registry, local_cloud_run: LocalCloudRun, http_session: Session
) -> None:
    image = Client(local_cloud_run.url, "acme/client/index").image(labels={"a": "b"})

    def entry(os_name: str, architecture: str, **more: str) -> dict[str, Any]:
        platform = {"os": os_name, "architecture": architecture, **more}
        return {**image, "platform": platform}

    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            entry("unknown", "unknown"),
            entry("linux", "arm64", variant="v8"),
            entry("linux", "amd64"),
        ],
    }
    body = json.dumps(index).encode()
    url = f"{local_cloud_run.url}/v2/acme/client/index/manifests/multi"
    http_session.put(url, data=body, headers={"Content-Type": INDEX}).raise_for_status()
    found = registry.resolve("acme/client/index", "multi")
    assert found is not None
    assert found.platforms == ("linux/arm64/v8", "linux/amd64")
    assert found.labels["a"] == "b"
    assert found.digest == f"sha256:{hashlib.sha256(body).hexdigest()}"


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def answering(answer: Callable[[str, str, dict[str, str]], Answer]) -> Iterator[str]:
    """Run a registry that answers each (method, path, headers) as the test wants."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            status, headers, body = answer(self.command, self.path, dict(self.headers))
            # A test may send a Date of its own.
            (self.send_response_only if "Date" in headers else self.send_response)(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_any

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


IMAGE = b'{"schemaVersion":2}'
DIGEST = f"sha256:{hashlib.sha256(IMAGE).hexdigest()}"
BLOBS = 2  # of a bundle: an empty configuration, and its bytes


def attach(url: str, session: Session, token: Callable[[str], str | None]) -> None:
    """Push blobs and a manifest."""
    Referrers(url, session, token).attach("x", DIGEST, b"bundle", "predicate")


def pushed(method: str, path: str) -> tuple[int, bytes]:
    """Return how an open registry answers that has the image, and nothing else."""
    if method == "GET":
        return (200, IMAGE) if path.endswith(f"/manifests/{DIGEST}") else (404, b"")
    return {"HEAD": 404, "POST": 202, "PATCH": 202}.get(method, 201), b""


def test_an_upload_that_fails_is_begun_anew(
    http_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    failures = iter([503, 429])
    posts: list[str] = []

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        posts.extend([path] if method == "POST" else [])
        status, body = pushed(method, path)
        if method == "PATCH":
            status = next(failures, 202)
        return status, {"Location": "/v2/x/blobs/uploads/1"}, body

    with answering(answer) as url:
        attach(url, http_session, lambda _: None)
    assert len(posts) == BLOBS + 2


def test_gives_up_with_the_registrys_error(
    http_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
    with answering(lambda *_: (429, {}, body)) as url, pytest.raises(Failed) as caught:
        Registry(url, http_session).resolve("x/y", "v1")
    assert "GET /v2/x/y/manifests/v1: 429 TOOMANYREQUESTS: slow down" in caught.value.message


def test_refused(http_session: Session) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"no"}]}'
    with answering(lambda *_: (403, {}, body)) as url, pytest.raises(UsageError) as caught:
        Registry(url, http_session).resolve("x", "v1")
    assert "403 DENIED: no" in caught.value.message
    assert "roles/artifactregistry.writer" in (caught.value.hint or "")


def test_other_bytes_than_the_digest_says(http_session: Session) -> None:
    digest = f"sha256:{'0' * 64}"
    with answering(lambda *_: (200, {}, b"{}")) as url, pytest.raises(Failed, match="got the byte"):
        Registry(url, http_session).resolve("x", digest)


def test_no_server_answers(http_session: Session) -> None:
    with answering(lambda *_: (200, {}, b"")) as url:
        pass
    with pytest.raises(ShipError) as caught:
        Registry(url, http_session).resolve("x", "v1")
    assert f"the local Cloud Run does not answer at {url}" in caught.value.message
    assert "./ship up" in (caught.value.hint or "")


class Recording(Session):
    """A session that sends nothing, keeps the requests, and answers as an open registry does."""

    def __init__(self) -> None:
        super().__init__(Patience())
        self.sent: list[tuple[str, str, str | None]] = []

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]  # only the arguments that matter here
        self.sent.append((method, url, options["headers"].get("Authorization")))
        answer = requests.Response()
        answer.status_code, answer._content = pushed(method, url)
        answer.url = url
        answer.headers["Location"] = "https://storage.example.com/upload"
        return answer


def test_a_token_goes_over_https_to_its_own_host_only() -> None:
    session = Recording()
    attach("https://pkg.example.com", session, lambda _: "T")
    assert len(session.sent) > 8
    for _, url, authorization in session.sent:
        own = url.startswith("https://pkg.example.com/")
        assert authorization == ("Bearer T" if own else None), url


def test_a_token_is_not_even_asked_for_over_http() -> None:
    def token(url: str) -> str:
        raise AssertionError(url)

    session = Recording()
    attach("http://pkg.example.com", session, token)
    assert {authorization for _, _, authorization in session.sent} == {None}


def test_a_token_reaches_a_registry_on_this_machine() -> None:
    """A local Cloud Run may ask who pushes; no one else can listen."""
    session = Recording()
    attach("http://127.0.0.1:1", session, lambda _: "T")
    own = {a for _, url, a in session.sent if url.startswith("http://127.0.0.1:1/")}
    assert own == {"Bearer T"}
