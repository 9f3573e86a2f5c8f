"""Hostile web pages, and what looks like them, do not pass the local Cloud Run's front door."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from emulator.front_door import SECRET_FILE, SECRET_HEADER
from emulator.metadata.server import Identity as Place
from emulator.metadata.server import MetadataServer
from tests.conftest import ROOT, LocalCloudRun
from tests.emulator import chromium
from tests.emulator.cloud_run_help import PROJECT, CloudRun, service

SERVICES = f"/v1/projects/{PROJECT}/locations/us-central1/services"


class NoTokens:
    """Makes no tokens: these requests ask for none."""

    def access_token(self, email: str, seconds: float) -> str:
        raise NotImplementedError

    id_token = access_token


def answer_to(url: str, request: str) -> tuple[int, str]:
    """Send a request as it is written; return the answer's status and body."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=60) as link:
        link.sendall(f"{request}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(link)
        answer.begin()
        return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def served(cloud_run: CloudRun, image: str) -> str:
    """Return the URL of a service."""
    return str(cloud_run.ready(service("behind", image))["status"]["url"])


FOREIGN = [
    "GET / HTTP/1.1\r\nHost: rebind.example:{port}",
    "GET / HTTP/1.1\r\nHost: rebind.example",
    "GET / HTTP/1.1\r\nHost: 0.0.0.0:{port}",
    "GET / HTTP/1.1\r\nHost: 10.0.0.1:{port}",
    "GET / HTTP/1.1\r\nHost: localhost.rebind.example:{port}",
    "GET / HTTP/1.1\r\nHost: us-west1-localhost:{port}",
    "GET / HTTP/1.1\r\nHost: user@localhost:{port}",
    "GET / HTTP/1.1\r\nHost: localhost:{port}@rebind.example",
    "GET / HTTP/1.1\r\nHost:",
    "GET / HTTP/1.0\r\nAccept: */*",
    "GET http://rebind.example:{port}/ HTTP/1.1\r\nHost: localhost:{port}",
    "GET http://localhost:{port}/ HTTP/1.1\r\nHost: rebind.example:{port}",
    "GET http://localhost:{port}@rebind.example/ HTTP/1.1\r\nHost: localhost:{port}",
]
NOT_HTTP = [
    "GET / HTTP/1.1\r\nAccept: */*",
    "GET / HTTP/1.1\r\nHost: localhost:{port}\r\nHost: localhost:{port}",
    "GET / HTTP/1.1\r\nHost: localhost:{port}\r\nHost: rebind.example",
]
OWN = [
    "GET / HTTP/1.1\r\nHost: localhost:{port}",
    "GET / HTTP/1.1\r\nHost: LOCALHOST",
    "GET / HTTP/1.1\r\nHost: app.localhost:9000",
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}",
    "GET / HTTP/1.1\r\nHost: 127.3.2.1:{port}",
    "GET / HTTP/1.1\r\nHost: [::1]:{port}",
    "GET / HTTP/1.1\r\nHost: us-central1-localhost:{port}",  # by option
    "GET http://us-central1-localhost:{port}/ HTTP/1.1\r\nHost: us-central1-localhost:{port}",
    "GET http://[::1]:{port}/ HTTP/1.1\r\nHost: [::1]:{port}",
]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [*((one, 421) for one in FOREIGN), *((one, 400) for one in NOT_HTTP)],
)
def test_a_request_for_another_host_is_refused_at_the_apis_and_at_a_service(
    cloud_run: CloudRun, served: str, request_: str, expected: int
) -> None:
    for url in (cloud_run.url, served):
        status, _ = answer_to(url, request_.format(port=urlsplit(url).port))
        assert status == expected


@pytest.mark.parametrize("request_", OWN)
def test_a_request_for_this_machine_is_answered(
    cloud_run: CloudRun, served: str, request_: str
) -> None:
    for url in (cloud_run.url, served):
        status, body = answer_to(url, request_.format(port=urlsplit(url).port))
        assert status == 200
        assert url == cloud_run.url or '"path": "/"' in body


def test_the_refusal_says_how_to_allow_a_host(cloud_run: CloudRun, served: str) -> None:
    for url in (cloud_run.url, served):
        refused = requests.get(url, headers={"Host": "box.example"}, timeout=60)
        assert refused.status_code == 421
        assert "./ship up --allow-host NAME" in refused.text


@pytest.mark.parametrize("name", ["http://box", "box:80", "*", ""])
def test_a_name_that_is_not_a_host_is_not_allowed(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts"), "up", f"--allow-host={name}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert f"--allow-host: '{name}' is not a host name" in ended.stderr


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://rebind.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "unknown"},
    ],
)
def test_a_request_of_a_foreign_page_is_refused(
    cloud_run: CloudRun, method: str, headers: dict[str, str]
) -> None:
    sent = {name: text.format(port=urlsplit(cloud_run.url).port) for name, text in headers.items()}
    for path in ("/", SERVICES, "/v2/", "/v2/acme/images/x/blobs/uploads/", "/v1/token", "/none"):
        refused = requests.request(method, cloud_run.url + path, headers=sent, timeout=60)
        assert refused.status_code == 403, path
        assert not [name for name in refused.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_a_page_of_the_local_cloud_run_opens_in_a_browser(cloud_run: CloudRun, site: str) -> None:
    page = requests.get(f"{cloud_run.url}/", headers={"Sec-Fetch-Site": site}, timeout=60)
    assert page.status_code == 200
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_write_that_is_not_json_is_refused(cloud_run: CloudRun, kind: str | None) -> None:
    body = json.dumps(service("plain", "image")).encode()
    headers = {"Content-Type": kind} if kind else {}
    for method, path in (("POST", SERVICES), ("PUT", f"{SERVICES}/plain"), ("PATCH", SERVICES)):
        refused = requests.request(
            method, cloud_run.url + path, data=body, headers=headers, timeout=60
        )
        assert refused.status_code == 415
        assert "must be application/json" in refused.text
    assert cloud_run.http.get(f"{cloud_run.base}/services/plain").status_code == 404


@pytest.mark.parametrize("secret", [None, "", "guess"])
def test_what_is_only_for_this_machine_needs_its_secret(
    local_cloud_run: LocalCloudRun, secret: str | None
) -> None:
    headers = {} if secret is None else {SECRET_HEADER: secret}
    for path in ("access-tokens", "github/jobs", "projects", "faults"):
        url = f"{local_cloud_run.url}/_local/{path}"
        refused = requests.post(url, json={}, headers=headers, timeout=60)
        assert refused.status_code == 403
        assert SECRET_FILE in refused.text


def test_the_secret_is_new_at_each_start_and_only_its_owner_can_read_it(
    fresh_cloud_run: LocalCloudRun,
) -> None:
    file = fresh_cloud_run.state / SECRET_FILE
    before = fresh_cloud_run.secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    fresh_cloud_run.stop()
    fresh_cloud_run.start()
    assert fresh_cloud_run.secret != before
    url = f"{fresh_cloud_run.url}/_local/faults"
    assert requests.get(url, headers=before, timeout=60).status_code == 403
    assert fresh_cloud_run.local("GET", "faults") == {"faults": []}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_metadata_server_answers_for_this_machine_only() -> None:
    async def statuses() -> list[int]:
        server = MetadataServer(Place("acme", "us-central1", "a@b.example"), NoTokens())
        url = f"http://{await server.start()}"
        asked = [
            await asyncio.to_thread(
                answer_to, url, f"GET / HTTP/1.1\r\nHost: {host}\r\nMetadata-Flavor: Google"
            )
            for host in ("rebind.example", urlsplit(url).netloc)
        ]
        await server.close()
        return [status for status, _ in asked]

    assert asyncio.run(statuses()) == [421, 200]


# Real pages in a real browser.

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
# A service that lets pages of every origin read its answers.
SHARED = b"""
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin", "*"))
        self.send_header("Access-Control-Allow-Headers", "X-Mine")
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"shared")
    do_OPTIONS = do_GET

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
# The attacks: each tries to create a service, whose command would run as the user.
ATTACK = """
const services = TARGET + "/v1/projects/acme/locations/us-central1/services";
const manifest = (name) => JSON.stringify({...MANIFEST, metadata: {name: PREFIX + name}});
const ask = (url, options) => fetch(url, options).then((r) => r.type, () => "failed");
const post = (body, options) => ask(services, {method: "POST", mode: "no-cors", body, ...options});
await post(manifest("text"));
await post(new Blob([manifest("blob")]));
await post(new Blob([manifest("form-type")], {type: "application/x-www-form-urlencoded"}));
const type = {"Content-Type": "application/json"};
await post(manifest("json"), {mode: "cors", headers: type});
const frame = Object.assign(document.createElement("iframe"), {name: "hidden"});
document.body.append(frame);
const form = document.createElement("form");
Object.assign(form, {method: "POST", action: services, enctype: "text/plain", target: "hidden"});
const field = document.createElement("input");
const [start, end] = manifest("form").split('{"name"');
field.name = start + '{"annotations":{"a":"';
field.value = '"},"name"' + end;
form.append(field);
document.body.append(form);
const sent = new Promise((done) => { frame.onload = done; });
form.submit();
await sent;
const picture = new Image();
const seen = new Promise((done) => {
  picture.onload = () => done("seen");
  picture.onerror = () => done("refused");
});
picture.src = TARGET + PICTURE;
const token = {method: "POST", headers: type, body: JSON.stringify({member: "user:a@b.example"})};
return {
  picture: await seen,
  token: await fetch(TARGET + "/_local/access-tokens", token).then((r) => r.status, () => 0),
  list: await fetch(services).then((r) => r.status, () => 0),
  shared: await fetch(SHARED, {headers: {"X-Mine": "1"}}).then((r) => r.text(), () => "refused"),
};
"""


class _Page(BaseHTTPRequestHandler):
    """The attacker's page, at every address; and a proxy that resolves names as they like.

    A proxy gets the URLs of a page whose name was rebound: its origin is the attacker's, the
    machine that answers is this one.
    """

    def do_GET(self) -> None:
        if self.path.startswith("http://") and not self.path.endswith("/page"):
            self._pass_on()
        else:
            self._answer(200, b"<!doctype html><body>hostile</body>", "text/html")

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        at = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        link = http.client.HTTPConnection("127.0.0.1", at.port, timeout=60)
        link.request(self.command, at.path, body, dict(self.headers.items()))
        answer = link.getresponse()
        self._answer(answer.status, answer.read(), answer.headers.get_content_type())
        link.close()

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[int]:
    """Serve the attacker's page; yield its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@chromium.needs_chromium
def test_pages_in_chromium_get_nowhere(
    fresh_cloud_run: LocalCloudRun, hostile: int, tmp_path: Path
) -> None:
    client = CloudRun(fresh_cloud_run.url)
    image = client.push()
    mark = tmp_path / "ran"
    manifest = service("owned", image)
    [taken] = manifest["spec"]["template"]["spec"]["containers"]
    taken |= {"command": ["/bin/sh", "-c", f"touch {mark}; sleep 60"]}
    uploads = f"{client.url}/v2/acme/images/app/blobs/uploads/"
    digest = f"sha256:{hashlib.sha256(PIXEL).hexdigest()}"
    assert requests.post(uploads, params={"digest": digest}, data=PIXEL, timeout=60).ok
    shared = client.ready(service("shared", client.push("shared", files={"app/main.py": SHARED})))
    port = urlsplit(client.url).port
    # The page's address and the one that it attacks.
    pages = {
        "cross-site": (f"http://localhost:{hostile}/page", client.url),
        "same-site": (f"http://127.0.0.1:{hostile}/page", client.url),
        "localhost": (f"http://localhost:{hostile}/page", f"http://localhost:{port}"),
        "rebound": (f"http://rebind.example:{port}/page", f"http://rebind.example:{port}"),
    }

    async def attack() -> dict[str, Any]:
        found: dict[str, Any] = {}
        proxy = f"--proxy-server=http://127.0.0.1:{hostile}"
        async with chromium.started(tmp_path / "profile", proxy) as tab:
            for name, (page, target) in pages.items():
                await tab.open(page)
                known = {
                    "TARGET": target,
                    "PREFIX": f"{name}-",
                    "MANIFEST": manifest,
                    "PICTURE": f"/v2/acme/images/app/blobs/{digest}",
                    "SHARED": shared["status"]["url"],
                }
                constants = "".join(f"const {k} = {json.dumps(v)};" for k, v in known.items())
                found[name] = await tab.run(constants + ATTACK)
            await tab.open(f"{client.url}/")
            found["own page"] = await tab.run("return document.body.innerText")
        return found

    found = asyncio.run(attack())
    listed = client.http.get(f"{client.base}/services").json()["items"]
    client.http.close()
    assert [one["metadata"]["name"] for one in listed] == ["shared"]
    assert not mark.exists()
    refused = {"picture": "refused", "token": 0, "list": 0, "shared": "shared"}
    assert found == {
        "cross-site": refused,
        "same-site": refused,
        "localhost": refused,
        "rebound": {**refused, "token": 421, "list": 421},
        "own page": found["own page"],
    }
    assert found["own page"].startswith("A local Cloud Run")
