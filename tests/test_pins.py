"""`nox -s pin`, against the local registry and one that asks for tokens, as Docker Hub does."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from scripts.config.image_reference import ImageReference
from tests import pins
from tests.conftest import ROOT, LocalCloudRun
from tests.emulator.registry_help import Client

OLD = f"sha256:{'0' * 64}"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


@pytest.mark.parametrize(
    ("tag", "tags", "expected"),
    [
        ("v0.9.1", ["v0.10.0", "v0.9.2", "0.11.0", "v0.12.0-rc1", "latest"], "v0.10.0"),
        ("29.1.3-cli", ["29.2.0-dind", "29.1.4-cli", "29.2.0"], "29.1.4-cli"),
        ("1.2.3", [], "1.2.3"),
        ("1.2.3", ["1.2.2"], "1.2.3"),
        ("3.13-slim-trixie", ["3.14-slim-trixie"], "3.13-slim-trixie"),
        ("stable-1", ["stable-2"], "stable-1"),
    ],
)
def test_only_a_full_version_moves_to_a_newer_tag(tag: str, tags: list[str], expected: str) -> None:
    assert pins.newest(tag, tags) == expected


def test_pins_move_in_place_and_are_reported_with_check(
    tmp_path: Path,
    local_cloud_run: LocalCloudRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = Client(local_cloud_run.url, "acme/pins/tool")
    host = local_cloud_run.url.removeprefix("http://")
    digests = {}
    for tag in ("1.2.3-cli", "1.10.0-cli", "stable"):
        digests[tag] = client.image(tag, labels={"tag": tag})["digest"]
    tool = f"{host}/acme/pins/tool"
    repository = tmp_path / "repository"
    (repository / "docs").mkdir(parents=True)
    texts = {
        "build.yaml": f"- name: &tool {tool}:1.2.3-cli@{OLD}\n- image={tool}:stable@{OLD}\n",
        "Dockerfile": f"FROM {tool}:stable@{digests['stable']}\nFROM {tool}:stable\n",
        "gone.yaml": f"name: {host}/acme/pins/none:v1@{OLD}\n",
        "docs/page.md": f"{tool}:stable@{OLD}\n",
    }
    for name, text in texts.items():
        (repository / name).write_text(text)
    (repository / "image.bin").write_bytes(b"\xff\xfe")
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)

    def found() -> dict[str, str]:
        return {name: (repository / name).read_text() for name in texts}

    assert pins.main(["--check"], repository) == 1
    assert found() == texts
    out, err = capsys.readouterr()
    now = f"{tool}:1.10.0-cli@{digests['1.10.0-cli']}"
    assert f"behind: {tool}:1.2.3-cli@{OLD}\n  -> {now}\n" in out
    assert f"pin: not looked up: {host}/acme/pins/none:v1: " in err
    assert pins.main([], repository) == 1, "one image was not found"
    stable = f"{tool}:stable@{digests['stable']}"
    build = f"- name: &tool {now}\n- image={stable}\n"
    assert found() == {**texts, "build.yaml": build}
    (repository / "gone.yaml").unlink()
    for arguments in (["--check"], []):
        assert pins.main(arguments, repository) == 0
        assert "every pinned image is current" in capsys.readouterr().out


class Hub(http.server.BaseHTTPRequestHandler):
    """A registry that lists tags in pages, and answers only with a token of its token server."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        given = self.headers.get("Authorization")
        here = f"http://{self.headers['Host']}"
        if url.path == "/token":
            query = parse_qs(url.query)
            self.answer(200, {"token": f"{query['service'][0]} {query['scope'][0]}"})
        elif given != "Bearer hub repository:moby/buildkit:pull":
            scope = (
                f'Bearer realm="{here}/token",service="hub",scope="repository:moby/buildkit:pull"'
            )
            self.answer(401, {}, **{"WWW-Authenticate": scope})
        elif "last" in url.query:
            self.answer(200, {"tags": ["v0.10.0"]})
        elif url.path.endswith("/tags/list"):
            following = '</v2/moby/buildkit/tags/list?last=v0.9.9>; rel="next"'
            self.answer(200, {"tags": ["v0.9.9"]}, Link=following)
        else:
            assert "index" in self.headers["Accept"].partition(",")[0]
            digit = "1" if url.path.endswith("/v0.10.0") else "2"
            self.answer(200, {}, **{"Docker-Content-Digest": f"sha256:{digit * 64}"})

    do_HEAD = do_GET

    def answer(self, code: int, document: object, **headers: str) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_anonymous_tokens_and_pages_of_tags(hub: str, session: requests.Session) -> None:
    pin = f"{hub}/moby/buildkit:v0.9.0@{OLD}"
    assert pins.current(pin, session) == f"{hub}/moby/buildkit:v0.10.0@sha256:{'1' * 64}"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("python", "https://registry-1.docker.io/v2/library/python/"),
        ("docker.io/library/python", "https://registry-1.docker.io/v2/library/python/"),
        ("moby/buildkit", "https://registry-1.docker.io/v2/moby/buildkit/"),
        ("gcr.io/a/b", "https://gcr.io/v2/a/b/"),
        ("127.0.0.1:5000/b", "http://127.0.0.1:5000/v2/b/"),
        ("127.0.0.1.example.com/b", "https://127.0.0.1.example.com/v2/b/"),
    ],
)
def test_where_an_image_is_looked_up(name: str, asked: str) -> None:
    """Docker Hub's short names have another host and another path in its registry."""
    assert pins.repository_url(ImageReference.parse(f"{name}:3@{OLD}")) == asked


def test_every_image_that_builds_is_pinned() -> None:
    found = [pin for file in pins.pinned_files(ROOT) for pin in pins.PIN.findall(_text(file))]
    names = {pin.partition(":")[0] for pin in found}
    assert {"python", "moby/buildkit", "docker/buildkit-syft-scanner", "docker"} <= names


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
