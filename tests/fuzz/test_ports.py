"""No bytes on a port of the local Cloud Run break it: APIs, a service, a tag, the metadata."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from emulator.metadata.server import Identity, MetadataServer
from emulator.recorder import VARIABLE
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, service, tag_url
from tests.fuzz import fuzz
from tests.fuzz.changes import Spoiled, spoil, spoiled, texts
from tests.fuzz.doors import Watched, request_of, send

METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PATCH",
    "get",
    "X" * 300,
    "",
]
TARGETS = [
    "/", "/healthz", "/a?b=c", "*", "", "//", "/%", "/%zz", "/%00", "/\0", "/../..", "/a b",
    "http://x/",
    "http://127.0.0.1/", "http://[::1", "/" + "a" * 9000, "/?" + "a=b&" * 2000, "/\u2028", "/#x",
    "/computeMetadata/v1/instance/service-accounts/default/token",
    "/computeMetadata/v1/instance/service-accounts/default/identity?audience=x&audience=%ff",
    "/computeMetadata/v1/instance/service-accounts/default/?recursive=true",
    "/computeMetadata/v1/instance/service-accounts/../../x", "/computeMetadata/v1/?alt=json",
    "/v2/", "/v2/entries:list",
]  # fmt: skip
HEADERS = [
    ("Host", "x"), ("Host", ""), ("Host", "127.0.0.1"), ("Host", "[::1"), ("Metadata-Flavor",
    "Google"),
    ("Content-Length", "-1"), ("Content-Length", "x"), ("Content-Length", "9" * 30),
    ("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Transfer-Encoding",
    "gzip, chunked"),
    ("Transfer-Encoding", "x"), ("Upgrade", "websocket"), ("Connection", "Upgrade"),
    ("Connection", "keep-alive, x, \u00ff"), ("Sec-WebSocket-Key", "x"), ("Sec-WebSocket-Version",
    "13"),
    ("Sec-WebSocket-Protocol", "a, b"), ("Sec-WebSocket-Extensions", "permessage-deflate; x=9"),
    ("Expect", "100-continue"), ("Expect", "x"), ("Authorization", "Bearer " + "a" * 6000),
    ("Authorization", "Bearer e30.e30.e30"), ("X-Forwarded-For", "x, " * 500),
    ("X-Cloud-Trace-Context", "/"),
    ("traceparent", "00-x"), ("Cookie", "x" * 5000), ("Content-Encoding", "gzip"), ("Range",
    "bytes=x"),
    ("X-Serverless-Authorization", "x"), ("Forwarded", "for=\""), ("Accept-Encoding", "\x0b"),
]  # fmt: skip
CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"x\r\n",
    b"ffffffffffffffff\r\n",
    b"-1\r\n\r\n",
    b"5;x=y\r\nhel",
    b"",
]


class NoTokens:
    """Makes tokens of no worth."""

    def access_token(self, email: str, seconds: float) -> str:
        return f"{email} {seconds}"

    def id_token(self, email: str, audience: str) -> str:
        return f"{email} {audience}"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE)
        cloud_run = LocalCloudRun(tmp_path_factory.mktemp("fuzz") / "state")
    yield Watched(cloud_run)
    cloud_run.stop()


@pytest.fixture(scope="module")
def metadata() -> Iterator[str]:
    """Serve an instance's metadata in a thread."""
    loop = asyncio.new_event_loop()
    place = Identity("acme", "us-central1", "runtime@acme.iam.gserviceaccount.com")
    server = MetadataServer(place, NoTokens())
    url = f"http://{loop.run_until_complete(server.start())}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield url
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(server.close())
    loop.close()


@pytest.fixture(scope="module")
def doors(watched: Watched, metadata: str) -> dict[str, str]:
    """Return the URL of each kind of port."""
    client = CloudRun(watched.url)
    client.ready(service("fuzzed", client.push(), "fuzzed-1"))
    traffic = [
        {"revisionName": "fuzzed-1", "percent": 100},
        {"revisionName": "fuzzed-1", "tag": "try"},
    ]
    shown = client.shift("fuzzed", traffic)
    urls = {"service": str(shown["status"]["url"]), "tag": tag_url(shown, "try")}
    return {**urls, "apis": watched.url, "metadata": metadata}


@st.composite
def requests_(draw: st.DrawFn, host: str) -> bytes:
    """Return requests that are not quite HTTP."""
    method = draw(st.one_of(st.sampled_from(["GET", "POST"]), st.sampled_from(METHODS)))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=4))
    if draw(st.integers(0, 3)) == 0:
        odd = draw(texts).encode("utf-8", "replace").decode()
        headers.append((odd[:20], odd))
    body = draw(st.sampled_from([None, b"", b"hello", *CHUNKS]))
    written = request_of(method, draw(st.sampled_from(TARGETS)), headers, body, host)
    several: list[Spoiled] = draw(spoiled)
    return spoil(written, several[:1])


@pytest.mark.parametrize("door", ["apis", "service", "tag", "metadata"])
@fuzz(25, long=2000)
@given(data=st.data())
def test_no_bytes_break_a_port(
    watched: Watched, doors: dict[str, str], door: str, data: st.DataObject
) -> None:
    url = doors[door]
    written = data.draw(requests_(url.removeprefix("http://")))
    note(repr(written[:900]))
    with watched.unharmed():
        answer = send(url, written, whole=False)
    # What an instance answers is its own; the router never answers 500 itself.
    assert answer.status != 500 or door in ("service", "tag"), answer.body
    alive = send(url, request_of("GET", "/", [], None, url.removeprefix("http://")))
    assert alive.status == 200
