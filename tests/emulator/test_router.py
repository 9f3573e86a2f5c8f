"""The front end: requests, answers, and the split of traffic."""

from __future__ import annotations

import asyncio
import collections
import gzip
import hashlib
import http.client
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import aiohttp
import pytest
import requests

from tests.emulator.cloud_run_help import condition, container, eventually, service, tag_url


@pytest.fixture(scope="module")
def url(cloud_run, image) -> str:
    """Return the URL of a ready service."""
    return cloud_run.ready(service("front", image, "front-a"))["status"]["url"]


def connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)


def test_a_request_arrives_unchanged_with_its_origin_added(cloud_run, url):
    headers = {
        "Host": "api.localhost",
        "X-Mine": "1",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "no",
        "Keep-Alive": "timeout=5",
        "X-Forwarded-For": "10.0.0.1",
    }
    answer = cloud_run.http.get(f"{url}/a%2Fb/../c?q=%20x&r=a+b", headers=headers)
    seen = answer.json()
    names = {name.lower(): value for name, value in seen["headers"]}
    assert names["host"] == "api.localhost"
    assert names["x-mine"] == "1"
    assert names["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
    assert names["x-forwarded-proto"] == "http"
    assert "x-hop" not in names
    assert "keep-alive" not in names
    trace, span = re.fullmatch(r"([0-9a-f]{32})/(\d+);o=1", names["x-cloud-trace-context"]).groups()
    assert names["traceparent"] == f"00-{trace}-{int(span):016x}-01"
    assert answer.headers["Server"] == "Google Frontend"
    assert answer.headers["X-From-App"] == "yes"


def test_the_path_is_passed_on_unchanged(url):
    link = connection(url)
    link.request("GET", "/a%2Fb/./c//d?q=%20x&r=a+b&s=[1]")
    assert b'"path": "/a%2Fb/./c//d?q=%20x&r=a+b&s=[1]"' in link.getresponse().read()
    link.close()


def test_a_trace_of_the_caller_is_continued(cloud_run, url):
    parent = f"00-{'a' * 32}-{'0' * 15}1-01"
    seen = cloud_run.http.get(url, headers={"traceparent": parent}).json()
    names = {name.lower(): value for name, value in seen["headers"]}
    assert names["traceparent"] == parent
    assert names["x-cloud-trace-context"] == f"{'a' * 32}/1;o=1"


def test_redirects_and_encodings_are_left_to_the_caller(cloud_run, url):
    answer = cloud_run.http.get(f"{url}/redirect", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/elsewhere")
    assert answer.headers["Set-Cookie"] == "a=1; Path=/"
    link = connection(url)
    link.request("GET", "/gzip")
    response = link.getresponse()
    body = response.read()
    link.close()
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == b"hello"


def test_head_has_headers_and_no_body_and_keeps_the_connection(url):
    link = connection(url)
    for method in ("HEAD", "GET", "HEAD"):
        link.request(method, "/")
        response = link.getresponse()
        body = response.read()
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert bool(body) == (method == "GET")
    link.close()


def test_healthz_never_reaches_the_container(cloud_run, url):
    for path in ("/healthz", "/healthz?x=1"):
        answer = cloud_run.http.get(url + path)
        assert answer.status_code == 404
        assert "/health" in answer.text
        assert "X-From-App" not in answer.headers
    for path in ("/health", "/healthz/", "/x/healthz"):
        assert cloud_run.http.get(url + path).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_streams_through(url, chunked):
    size = 48 * 1024 * 1024
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256(block * (size // len(block))).hexdigest()
    blocks = (block for _ in range(size // len(block)))
    link = connection(url)
    headers = {} if chunked else {"Content-Length": str(size)}
    link.request("POST", "/", body=blocks, headers=headers, encode_chunked=chunked)
    body = link.getresponse().read().decode()
    link.close()
    assert body == f'{{"size": {size}, "sha256": "{digest}"}}'


def test_a_caller_may_wait_for_100_continue(url):
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=60) as link:
        link.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert link.recv(1000).startswith(b"HTTP/1.1 100 ")
        link.sendall(b"hello")
        answer = b""
        while chunk := link.recv(1000):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert hashlib.sha256(b"hello").hexdigest().encode() in answer


def test_server_sent_events_come_as_they_are_sent(cloud_run, image):
    url = cloud_run.ready(service("events", image))["status"]["url"]
    link = connection(url)
    link.request("GET", "/events")
    response = link.getresponse()
    assert response.readline() == b"data: one\n"
    # The second event is sent once the first was received.
    assert cloud_run.http.get(f"{url}/release").status_code == 200
    assert response.read() == b"\ndata: two\n\n"
    link.close()


def test_a_websocket_is_connected_with_the_instance(url):
    async def talk() -> tuple[str | None, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/socket", protocols=("chat", "other")) as sock,
        ):
            await sock.send_str("hello")
            text = await sock.receive_str()
            assert (await sock.receive()).type is aiohttp.WSMsgType.CLOSE
            return sock.protocol, text

    assert asyncio.run(talk()) == ("chat", "HELLO")


def test_a_websocket_that_the_instance_refuses_is_refused(url):
    async def talk() -> None:
        async with aiohttp.ClientSession() as session:
            await session.ws_connect(f"{url}/no-socket")

    with pytest.raises(aiohttp.WSServerHandshakeError):
        asyncio.run(talk())


def test_an_instance_that_crashes_is_a_503_and_the_next_request_is_answered(cloud_run, image):
    url = cloud_run.ready(service("brittle", image, "brittle-a"))["status"]["url"]
    first = cloud_run.http.get(url).json()["pid"]
    assert cloud_run.http.post(f"{url}/", data=b"x").status_code == 200
    assert cloud_run.http.get(f"{url}/drop").status_code == 503
    broken = cloud_run.http.get(f"{url}/crash")
    assert broken.status_code == 503
    assert "malformed or connection to the instance had an error" in broken.text
    assert cloud_run.http.get(url).json()["pid"] != first
    logs = 'resource.labels.service_name="brittle" severity>=ERROR textPayload:*'
    entries = eventually(lambda: cloud_run.logs(logs).json()["entries"])
    # One crash only: the request that crashed an instance is not sent to the next one.
    assert [entry["textPayload"] for entry in entries] == ["Container called exit(3)."]


def test_an_incomplete_answer_is_aborted(url):
    link = connection(url)
    link.request("GET", "/half")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        link.getresponse().read()
    link.close()


def test_a_request_that_takes_too_long_is_a_504(cloud_run, image):
    document = service("slow", image)
    document["spec"]["template"]["spec"]["timeoutSeconds"] = 1
    url = cloud_run.ready(document)["status"]["url"]
    assert cloud_run.http.get(f"{url}/wait").status_code == 504
    assert cloud_run.http.get(url).status_code == 200


@pytest.fixture(scope="module")
def pair(cloud_run, image) -> str:
    """Return the name of a service with revisions pair-a (tag `old`) and pair-b (tag `new`)."""
    cloud_run.ready(service("pair", image, "pair-a"))
    second = service("pair", image, "pair-b", A="1")
    second["spec"]["traffic"] = [
        {"revisionName": "pair-a", "percent": 100, "tag": "old"},
        {"revisionName": "pair-b", "tag": "new"},
    ]
    cloud_run.ready(second)
    return "pair"


def tally(cloud_run, url: str, count: int) -> collections.Counter[str]:
    return collections.Counter(cloud_run.http.get(url).json()["revision"] for _ in range(count))


def test_each_share_is_within_two_points_and_follows_at_once(cloud_run, pair):
    """So few requests are enough: the split is even, not random."""
    for percent in (10, 50, 90):
        ready = cloud_run.shift(
            pair,
            [
                {"revisionName": "pair-a", "percent": 100 - percent, "tag": "old"},
                {"revisionName": "pair-b", "percent": percent, "tag": "new"},
            ],
        )
        counts = tally(cloud_run, ready["status"]["url"], 200)
        assert abs(counts["pair-b"] / 2 - percent) < 2
    for tag, revision in (("old", "pair-a"), ("new", "pair-b")):
        assert tally(cloud_run, tag_url(ready, tag), 20) == {revision: 20}


def test_no_request_fails_while_traffic_moves_and_revisions_come_and_go(cloud_run, image):
    """I3 and I4 from outside: a caller does not notice a rollout."""
    name = "moving"
    url = cloud_run.ready(service(name, image, f"{name}-0"))["status"]["url"]
    stop = threading.Event()

    def call() -> collections.Counter[int]:
        codes: collections.Counter[int] = collections.Counter()
        link = connection(url)
        while not stop.is_set():
            link.request(*(("POST", "/", b"x") if codes.total() % 5 == 0 else ("GET", "/")))
            response = link.getresponse()
            response.read()
            codes[response.status] += 1
        link.close()
        return codes

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(call) for _ in range(4)]
        try:
            for number in range(1, 4):
                old, new = f"{name}-{number - 1}", f"{name}-{number}"
                document = service(name, image, new, NUMBER=str(number))
                document["spec"]["traffic"] = [{"revisionName": old, "percent": 100}]
                cloud_run.ready(document)
                for percent in (30, 70, 0):
                    plan = [{"revisionName": new, "percent": 100 - percent}]
                    if percent:
                        plan.append({"revisionName": old, "percent": percent})
                    cloud_run.shift(name, plan)
        finally:
            stop.set()
        codes = sum((caller.result() for caller in callers), collections.Counter())
    assert set(codes) == {200}
    assert codes[200] > 100
    assert cloud_run.http.get(url).json()["revision"] == f"{name}-3"


def test_a_removed_tag_stops_answering(cloud_run, image):
    name = "untagged"
    cloud_run.ready(service(name, image, f"{name}-a"))
    plan = [{"revisionName": f"{name}-a", "percent": 100, "tag": "blue"}]
    tagged = cloud_run.shift(name, plan)
    blue = urlsplit(tag_url(tagged, "blue"))
    assert cloud_run.http.get(blue.geturl()).status_code == 200
    untagged = cloud_run.shift(name, [{"revisionName": f"{name}-a", "percent": 100}])
    assert "tag" not in untagged["status"]["traffic"][0]

    def refused() -> bool:
        try:
            socket.create_connection((blue.hostname, blue.port), timeout=60).close()
        except ConnectionRefusedError:
            return True
        return False

    assert eventually(refused)


def test_a_deleted_services_requests_are_finished(cloud_run, image):
    document = service("finishing", image)
    url = cloud_run.ready(document)["status"]["url"]
    instance = f"http://127.0.0.1:{cloud_run.http.get(url).json()['env']['PORT']}"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.get, f"{url}/wait", timeout=60)
        assert cloud_run.http.get(f"{url}/waiting").json() == {"waiting": True}
        assert cloud_run.http.delete(f"{cloud_run.base}/services/finishing").status_code == 200
        with pytest.raises(requests.ConnectionError):
            eventually(lambda: cloud_run.http.get(url, timeout=60) and False)
        # Only the instance's own port is left.
        assert cloud_run.http.get(f"{instance}/release").status_code == 200
        assert waiting.result().status_code == 200


def test_a_probe_of_another_path_does_not_disturb_the_split(cloud_run, image):
    document = service("webprobe", image)
    container(document)["startupProbe"] = {"httpGet": {"path": "/healthz"}}
    assert condition(cloud_run.ready(document))["status"] == "True"
