"""Faults of single calls and of revisions: each name, and each key that chooses the calls."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from emulator.faults import settings
from tests.conftest import ROOT, LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, condition, eventually, service

_SECRETS = "/v1/projects/acme/secrets"


class Faulty:
    """A local Cloud Run with faults."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self.cloud_run = cloud_run
        self.url = cloud_run.url

    def start(self, name: str, **settings: Any) -> None:
        self.cloud_run.local("POST", "faults", {"name": name, **settings})

    def active(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cloud_run.local("GET", "faults")["faults"]
        return found

    def end(self) -> None:
        for fault in self.active():
            self.cloud_run.local("DELETE", f"faults/{fault['name']}")

    def get(self, path: str = _SECRETS, timeout: float = 10) -> requests.Response:
        return requests.get(self.url + path, timeout=timeout)

    def make(self, name: str) -> requests.Response:
        return requests.post(
            f"{self.url}{_SECRETS}?secretId={name}", json={"replication": {"automatic": {}}},
            timeout=60,
        )  # fmt: skip

    def exists(self, name: str) -> bool:
        return self.get(f"{_SECRETS}/{name}").status_code == 200


@pytest.fixture(scope="module")
def cloud_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloudRun]:
    """Yield one with faults from its start, which `faulty` ends."""
    state = tmp_path_factory.mktemp("faults") / "state"
    made = LocalCloudRun(state, "--fault=status,code=429,from=2,times=1,retry-after=7")
    assert made.local("GET", "faults")["faults"] == [
        {"name": "status", "code": 429, "from": 2, "times": 1, "retry-after": 7}
        | {"met": 0, "struck": 0}
    ]
    yield made
    made.stop()


@pytest.fixture
def faulty(cloud_run: LocalCloudRun) -> Iterator[Faulty]:
    made = Faulty(cloud_run)
    made.end()
    yield made
    made.end()


@pytest.mark.parametrize("code", [400, 401, 403, 404, 408, 409, 412, 429, 500, 502, 503, 504])
def test_a_call_is_answered_with_any_status_instead_of_being_done(
    faulty: Faulty, code: int
) -> None:
    faulty.start("status", code=code, method="POST", times=1, **{"retry-after": 3})
    answer = faulty.make(f"status-{code}")
    assert answer.status_code == answer.json()["error"]["code"] == code
    assert answer.headers["Retry-After"] == "3"
    assert not faulty.exists(f"status-{code}")
    faulty.start("status", code=code, method="POST", done=True)
    assert faulty.make(f"status-{code}").status_code == code
    assert faulty.exists(f"status-{code}")


def test_the_registry_has_its_own_form_of_an_error(faulty: Faulty) -> None:
    faulty.start("status", api="artifactregistry")
    assert faulty.get("/v2/acme/images/app/tags/list").json()["errors"][0]["code"] == "UNAVAILABLE"
    assert faulty.get().ok


@pytest.mark.parametrize(("name", "is_done"), [("reset", False), ("lost", True), ("cut", True)])
def test_a_connection_ends_before_or_after_the_deed(
    faulty: Faulty, name: str, is_done: bool
) -> None:
    faulty.start(name, method="POST")
    with pytest.raises(requests.exceptions.RequestException) as caught:
        faulty.make(f"connection-{name}")
    assert ("IncompleteRead" in str(caught.value)) == (name == "cut")
    assert faulty.exists(f"connection-{name}") == is_done


@pytest.mark.parametrize(
    ("name", "body"), [("html", "<!DOCTYPE html>"), ("empty", ""), ("no-fields", "{}")]
)
def test_an_answer_is_not_what_was_asked_for(faulty: Faulty, name: str, body: str) -> None:
    faulty.start(name, method="POST", done=True)
    answer = faulty.make(f"answer-{name}")
    assert answer.status_code == 200
    assert answer.text.startswith(body)
    assert bool(answer.text) == bool(body)
    assert faulty.exists(f"answer-{name}")
    faulty.start(name, code=502)
    assert faulty.get().status_code == 502


def test_an_earlier_answer_is_repeated(faulty: Faulty) -> None:
    faulty.start("stale", method="GET", path=_SECRETS, **{"from": 2})
    before = faulty.get().json()
    assert faulty.make("stale").ok
    assert faulty.get().json() == before
    faulty.end()
    assert faulty.get().json() != before


def test_an_answer_is_late_or_comes_in_pieces(faulty: Faulty) -> None:
    assert faulty.make("pieces").ok
    whole = faulty.get().content
    for name in ("slow", "trickle"):
        faulty.start(name, seconds=0.2)
        began = time.monotonic()
        assert faulty.get().content == whole
        assert time.monotonic() - began >= 0.15
        faulty.end()


def test_a_call_hangs_until_the_fault_ends(faulty: Faulty) -> None:
    """It continues then, unless its caller has given up."""
    for name, done in (("hang-before", False), ("hang-after", True)):
        faulty.start("hang", method="POST", done=done)
        answers: list[requests.Response] = []
        waiting = threading.Thread(target=lambda n=name, a=answers: a.append(faulty.make(n)))
        waiting.start()
        eventually(lambda: faulty.active()[0]["struck"])
        eventually(lambda n=name, d=done: faulty.exists(n) == d)
        faulty.end()
        waiting.join()
        assert answers[0].ok
        assert faulty.exists(name)
    faulty.start("hang", method="POST")
    host, _, port = faulty.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as caller:
        request = f"POST {_SECRETS}?secretId=given-up HTTP/1.1\r\nHost: {host}\r\n"
        request += "Content-Type: application/json\r\nContent-Length: 2\r\n"
        caller.sendall(f"{request}\r\n{{}}".encode())
        eventually(lambda: faulty.active()[0]["struck"])
    faulty.end()
    assert not faulty.exists("given-up")


def test_an_upload_is_dropped(faulty: Faulty) -> None:
    uploads = f"{faulty.url}/v2/acme/images/app/blobs/uploads/"
    place = requests.post(uploads, timeout=60).headers["Location"]
    faulty.start("drop-upload", times=1)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.patch(faulty.url + place, data=b"layer" * 1000, timeout=60)
    assert requests.patch(faulty.url + place, data=b"layer", timeout=60).status_code == 202


def test_the_keys_choose_the_calls(faulty: Faulty) -> None:
    def codes(**keys: Any) -> list[int]:
        faulty.start("status", path=_SECRETS, **keys)
        return [faulty.get().status_code for _ in range(6)]

    assert codes(times=2) == [503, 503, 200, 200, 200, 200]
    assert codes(**{"from": 3}) == [200, 200, 503, 503, 503, 503]
    assert codes(every=2) == [503, 200, 503, 200, 503, 200]
    assert codes(every=2, times=1, **{"from": 2}) == [200, 503, 200, 200, 200, 200]
    assert codes(method="PUT") == codes(api="run") == [200] * 6
    assert codes(api="secret*") == [503] * 6
    faulty.start("status", path=_SECRETS, spread=True, **{"from": 2})
    paths = ["/v1/projects/acme", _SECRETS, _SECRETS, "/v1/projects/acme"]
    assert [faulty.get(path).status_code for path in paths] == [200, 200, 503, 503]


def test_the_calls_are_listed(faulty: Faulty) -> None:
    faulty.get()
    last = faulty.cloud_run.local("GET", "calls")["calls"][-1]["number"]
    faulty.start("status", method="GET")
    faulty.make("listed")
    faulty.get(f"{_SECRETS}/listed?a=b")
    assert faulty.cloud_run.local("GET", f"calls?after={last}")["calls"] == [
        {
            "number": last + 1, "method": "POST", "path": f"{_SECRETS}?secretId=listed",
            "api": "secretmanager", "status": 200,
        },
        {
            "number": last + 2, "method": "GET", "path": f"{_SECRETS}/listed?a=b",
            "api": "secretmanager", "fault": "status",
        },
    ]  # fmt: skip


def test_revisions_are_slow_or_never_ready_or_crash(faulty: Faulty) -> None:
    client = CloudRun(faulty.url)
    image = client.push()

    def state(name: str) -> str:
        return str(condition(client.revision(name))["status"])

    faulty.start("revision-never-ready", revision="never*")
    faulty.start("revision-slow", revision="slow*", seconds=0.3)
    faulty.start("revision-crashes", revision="crash*", seconds=0.1)
    for name in ("never", "slow", "crash"):
        client.create(service(name, image, revision=f"{name}-1"))
    eventually(lambda: state("slow-1") == "True")
    eventually(lambda: state("crash-1") == "True")
    assert state("never-1") == "Unknown"
    url = client.settled("crash")["status"]["url"]
    eventually(lambda: requests.get(url, timeout=60).status_code == 503)
    faulty.end()
    eventually(lambda: state("never-1") == "True")
    eventually(lambda: requests.get(url, timeout=60).status_code == 200)


@pytest.mark.parametrize(
    "text",
    [
        "rain", "status,code=99", "status,code=often", "status,from=0", "status,speed=1", "lost,x",
        "hang,seconds=1e99", "no-billing,code=3",
    ],
)  # fmt: skip
def test_a_wrong_fault_is_refused(text: str) -> None:
    with pytest.raises(Exception, match=r"Expected|KEY=VALUE|unknown field"):
        settings.from_text(text)


def test_the_page_lists_every_fault() -> None:
    page = (ROOT / "docs/local-cloud-run.md").read_text()
    listed = set(re.findall(r"^\| `([a-z-]+)`", page.partition("## Faults")[2], re.MULTILINE))
    assert listed == set(settings.KINDS)
