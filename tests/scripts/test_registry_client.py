"""The registry client: against the local Cloud Run, and against registries that misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.cloud.patience import Patience
from scripts.cloud.registry import Registry
from scripts.cloud.session import Session
from scripts.errors import Failed, ShipError, UsageError
from scripts.image.packing.pack import PackedImage
from scripts.machine.platform import host_platform
from tests.conftest import LocalCloudRun
from tests.scripts.pack_help import packed, write_app

INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def http_session() -> Iterator[Session]:
    with Session(Patience(2)) as session:
        session.trust_env = False
        yield session


@pytest.fixture
def image(tmp_path: Path) -> PackedImage:
    app = write_app(tmp_path / "app")
    return packed(app, tmp_path / "cache", labels={"a": "b"})


@pytest.fixture
def registry(local_cloud_run: LocalCloudRun, http_session: Session) -> Registry:
    return Registry(local_cloud_run.url, http_session)


def test_an_image_that_does_not_exist(registry: Registry) -> None:
    assert registry.resolve("acme/client/none", "v1") is None


def test_push_and_resolve(registry: Registry, image: PackedImage) -> None:
    said: list[str] = []
    assert registry.push("acme/client/one", "v1", image, said.append) == image.digest
    size = sum(layer.size for layer in image.layers)
    assert said == [f"pushed {size / 1000:.1f} kB; layers: 2 new, 0 already there"]
    for reference in ("v1", image.digest):
        found = registry.resolve("acme/client/one", reference)
        assert found is not None
        assert found.digest == image.digest
        assert found.media_type == image.media_type
        assert found.platforms == (host_platform(),)
        assert found.labels["a"] == "b"
        assert found.labels["dev.shipway.builder"] == "pack"


def test_pushes_only_missing_parts(registry: Registry, image: PackedImage, tmp_path: Path) -> None:
    registry.push("acme/client/two", "v1", image, lambda _: None)
    (tmp_path / "app/main.py").write_text("print('changed')\n")
    changed = packed(tmp_path / "app", tmp_path / "cache")
    said: list[str] = []
    registry.push("acme/client/two", "v2", changed, said.append)
    assert said == [f"pushed {changed.layers[1].size} B; layers: 1 new, 1 already there"]


def test_mounts_from_a_sibling(registry: Registry, image: PackedImage) -> None:
    registry.push("acme/client/from", "v1", image, lambda _: None)
    said: list[str] = []
    registry.push("acme/client/to", "v1", image, said.append, mount_from="acme/client/from")
    assert said == ["pushed 0 B; layers: 0 new, 2 already there"]
    assert registry.resolve("acme/client/to", "v1") is not None


def test_an_index_has_the_platforms_of_its_images(
    registry: Registry,
    image: PackedImage,
    local_cloud_run: LocalCloudRun,
    http_session: Session,
) -> None:
    registry.push("acme/client/index", "one", image, lambda _: None)

    def entry(os_name: str, architecture: str, **more: str) -> dict[str, Any]:
        platform = {"os": os_name, "architecture": architecture, **more}
        return {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": len(image.manifest),
            "platform": platform,
        }

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
            self.send_response(status)
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
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_the_tag_is_written_last(http_session: Session, image: PackedImage) -> None:
    seen: list[str] = []

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        seen.append(f"{method} {path.rsplit('/', 2)[-2]}")
        status = {"HEAD": 404, "POST": 202, "PATCH": 202}.get(method, 201)
        return status, {"Location": "/v2/x/blobs/uploads/1?state=2"}, b""

    with answering(answer) as url:
        Registry(url, http_session).push("x", "v1", image, lambda _: None)
    assert seen[-1] == "PUT manifests"
    assert seen.count("PUT manifests") == 1
    assert seen.count("PATCH uploads") == 3


def test_an_upload_that_fails_is_begun_anew(
    http_session: Session, image: PackedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    failures = iter([503, 429])
    posts: list[str] = []

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        posts.extend([path] if method == "POST" else [])
        status = {"HEAD": 404, "POST": 202}.get(method, 201)
        if method == "PATCH":
            status = next(failures, 202)
        return status, {"Location": "/v2/x/blobs/uploads/1"}, b""

    with answering(answer) as url:
        Registry(url, http_session).push("x", "v1", image, lambda _: None)
    assert len(posts) == 3 + 2


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
        answer.status_code = {"HEAD": 404, "POST": 202}.get(method, 201)
        answer.url = url
        answer.headers["Location"] = "https://storage.example.com/upload"
        return answer


def test_a_token_goes_over_https_to_its_own_host_only(image: PackedImage) -> None:
    session = Recording()
    Registry("https://pkg.example.com", session, lambda _: "T").push("x", "v", image, print)
    assert len(session.sent) > 8
    for _, url, authorization in session.sent:
        own = url.startswith("https://pkg.example.com/")
        assert authorization == ("Bearer T" if own else None), url


def test_a_token_is_not_even_asked_for_over_http(image: PackedImage) -> None:
    def token(url: str) -> str:
        raise AssertionError(url)

    session = Recording()
    Registry("http://pkg.example.com", session, token).push("x", "v", image, lambda _: None)
    assert {authorization for _, _, authorization in session.sent} == {None}


def test_a_token_reaches_a_registry_on_this_machine(image: PackedImage) -> None:
    """A local Cloud Run may ask who pushes; no one else can listen."""
    session = Recording()
    Registry("http://127.0.0.1:1", session, lambda _: "T").push("x", "v", image, lambda _: None)
    own = {a for _, url, a in session.sent if url.startswith("http://127.0.0.1:1/")}
    assert own == {"Bearer T"}
