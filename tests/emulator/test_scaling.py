"""The number of instances, and the replacement of those that fail."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from emulator.instances.launch import Bounds
from emulator.run import quantities, scale
from tests.conftest import BY_PID, LocalCloudRun
from tests.emulator.cloud_run_help import container, eventually, is_alive, service


@pytest.fixture
def idle_cloud_run(tmp_path: Path) -> Iterator[LocalCloudRun]:
    """Yield a local Cloud Run that stops an instance after 0.2 s without a request."""
    cloud_run = LocalCloudRun(tmp_path / "state", "--idle", "0.2", *BY_PID)
    yield cloud_run
    cloud_run.stop()


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """Return a folder that shows the held requests; a file named go in it releases them."""
    folder = tmp_path / "held"
    folder.mkdir()
    return folder


def scaled(name, image, *, concurrency=1, most=None, least=None, liveness=None, **env):
    document = service(name, image, f"{name}-a", **env)
    template = document["spec"]["template"]
    template["spec"]["containerConcurrency"] = concurrency
    bounds = {"maxScale": most, "minScale": least}
    template["metadata"]["annotations"] = {
        f"autoscaling.knative.dev/{kind}": str(value) for kind, value in bounds.items() if value
    }
    if liveness:
        container(document)["livenessProbe"] = liveness
    return document


def pids(held: Path) -> list[int]:
    return [int(path.name.partition("-")[0]) for path in held.glob("*-*")]


def texts(client, name: str) -> list[str]:
    """Return the log of a service as text."""
    entries = client.logs(f'resource.labels.service_name="{name}"').json().get("entries", [])
    return [entry.get("textPayload", "") for entry in entries]


def starts(client, name: str) -> int:
    return sum("STARTUP TCP probe succeeded" in text for text in texts(client, name))


def hold(url: str, held: Path) -> requests.Response:
    return requests.get(f"{url}/hold?{held}", timeout=60)


def test_requests_beyond_the_concurrency_get_another_instance_and_then_wait(cloud_run, image, held):
    url = cloud_run.ready(scaled("crowded", image, most=2))["status"]["url"]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(hold, url, held) for _ in range(4)]
        eventually(lambda: len(pids(held)) == 2)
        (held / "go").touch()
        answers = [call.result() for call in calls]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["pid"] for answer in answers}) == 2
    # Instances of a revision share the folder of its image.
    assert len({answer.json()["cwd"] for answer in answers}) == 1
    assert starts(cloud_run, "crowded") == 2


def test_an_instance_takes_as_many_requests_as_the_concurrency(cloud_run, image, held):
    url = cloud_run.ready(scaled("roomy", image, concurrency=8))["status"]["url"]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(hold, url, held) for _ in range(8)]
        eventually(lambda: len(pids(held)) == 8)
        (held / "go").touch()
        assert len({call.result().json()["pid"] for call in calls}) == 1
    assert starts(cloud_run, "roomy") == 1


def test_a_request_without_room_for_ten_seconds_is_a_429(cloud_run, image, held):
    url = cloud_run.ready(scaled("full", image, most=1))["status"]["url"]
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold, url, held)
        eventually(lambda: pids(held))
        began = time.monotonic()
        refused = requests.get(url, timeout=60)
        assert time.monotonic() - began > 9.5
        assert not holding.done()
        assert refused.status_code == 429
        assert "aborted because there was no available instance" in refused.text
        (held / "go").touch()
        assert holding.result().status_code == 200
    assert cloud_run.http.get(url).status_code == 200


def test_a_caller_who_hangs_up_while_waiting_takes_no_room(cloud_run, image, held):
    url = cloud_run.ready(scaled("impatient", image, most=1))["status"]["url"]
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold, url, held)
        eventually(lambda: pids(held))
        with contextlib.suppress(requests.Timeout):
            requests.get(url, timeout=0.2)
        (held / "go").touch()
        assert holding.result().status_code == 200
    for _ in range(3):
        assert requests.get(url, timeout=60).status_code == 200


def test_idle_instances_above_the_minimum_are_stopped(idle_cloud_run, connect, held):
    client = connect(idle_cloud_run.url)
    url = client.ready(scaled("tidal", client.push(), least=1))["status"]["url"]
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(hold, url, held) for _ in range(3)]
        eventually(lambda: len(set(pids(held))) == 3)
        (held / "go").touch()
        running = {call.result().json()["pid"] for call in calls}
    eventually(lambda: sum(is_alive(pid) for pid in running) == 1)
    kept = next(pid for pid in running if is_alive(pid))
    assert client.http.get(url).json()["pid"] == kept


@pytest.mark.parametrize("level", ["revision", "service"])
def test_a_minimum_is_started_without_requests_and_kept(idle_cloud_run, connect, level):
    client = connect(idle_cloud_run.url)
    document = scaled("eager", client.push(), least=2 if level == "revision" else None)
    if level == "service":
        document["metadata"]["annotations"] = {"run.googleapis.com/minScale": "2"}
    url = client.ready(document)["status"]["url"]
    eventually(lambda: starts(client, "eager") == 2)
    pid = client.http.get(url).json()["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: starts(client, "eager") == 3)
    # Longer than an idle instance may stay.
    assert "got SIGTERM" not in texts(client, "eager")


@pytest.mark.parametrize(
    ("own", "service_says", "percent", "expected"),
    [
        ((0, 100), {}, 100, (0, 100)),
        ((0, 100), {"minScale": "3", "maxScale": "10"}, 100, (3, 10)),
        ((0, 100), {"minScale": "3", "maxScale": "10"}, 25, (1, 3)),
        ((2, 4), {"minScale": "1", "maxScale": "10"}, 100, (2, 4)),
        ((1, 100), {"minScale": "3", "maxScale": "10"}, 0, (1, 100)),
    ],
)
def test_a_services_bounds_are_divided_by_traffic(own, service_says, percent, expected):
    annotations = {f"run.googleapis.com/{name}": value for name, value in service_says.items()}
    assert scale.with_share(Bounds(*own), annotations, percent) == expected


def test_a_malformed_quantity_is_refused(cloud_run, image):
    document = service("measured", image)
    container(document)["resources"] = {"limits": {"memory": "plenty"}}
    refused = cloud_run.create(document)
    assert refused.status_code == 400
    assert "resources.limits.memory" in refused.json()["error"]["message"]
    assert quantities.amount("512Mi") == 512 * 1024**2
    assert quantities.amount("250m") == 0.25


def test_an_instance_that_crashes_loses_its_own_requests_and_is_replaced(cloud_run, image, held):
    url = cloud_run.ready(scaled("mortal", image, concurrency=2, most=2))["status"]["url"]
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(hold, url, held) for _ in range(4)]
        eventually(lambda: len(pids(held)) == 4)
        waiting = pool.submit(requests.get, url, timeout=60)
        victim = pids(held)[0]
        os.kill(victim, signal.SIGKILL)
        # The request that waited is answered by a new instance.
        eventually(lambda: starts(cloud_run, "mortal") == 3)
        (held / "go").touch()
        answers = [call.result() for call in calls]
        assert waiting.result().json()["pid"] not in pids(held)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]


def test_a_request_that_waits_is_answered_though_its_revision_is_deleted(
    cloud_run, local_cloud_run, image
):
    """It came when the revision still had all traffic, and the only instance had crashed."""
    url = cloud_run.ready(service("left", image, "left-1"))["status"]["url"]
    cloud_run.ready(service("left", image, "left-2", [{"revisionName": "left-1", "percent": 100}]))
    user = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    user.request("GET", "/")
    os.kill(json.load(user.getresponse())["pid"], signal.SIGKILL)
    eventually(lambda: "Container terminated on signal 9." in texts(cloud_run, "left"))
    fault = {"name": "revision-never-ready", "revision": "left-1"}
    local_cloud_run.local("POST", "faults", fault)
    try:
        user.request("GET", "/")
        cloud_run.shift("left", [{"revisionName": "left-2", "percent": 100}])
        deleted = cloud_run.http.delete(f"{cloud_run.base}/revisions/left-1")
        assert deleted.status_code == 200, deleted.text
    finally:
        local_cloud_run.local("DELETE", f"faults/{fault['name']}")
    answer = user.getresponse()
    text = answer.read()
    user.close()
    assert answer.status == 200, text
    assert json.loads(text)["revision"] == "left-1"


def test_sigterm_comes_first_and_sigkill_ten_seconds_later(idle_cloud_run, connect):
    client = connect(idle_cloud_run.url)
    document = scaled("stubborn", client.push(), IGNORE_TERM="1")
    url = client.ready(document)["status"]["url"]
    began = time.monotonic()
    pid = client.http.get(url).json()["pid"]
    eventually(lambda: "ignoring SIGTERM" in texts(client, "stubborn"))
    assert is_alive(pid)
    eventually(lambda: not is_alive(pid))
    assert time.monotonic() - began > 10


def test_an_instance_that_fails_its_http_liveness_probe_is_killed_and_replaced(
    cloud_run, image, held
):
    probe = {"httpGet": {"path": "/alive"}, "periodSeconds": 1, "failureThreshold": 2}
    url = cloud_run.ready(scaled("frail", image, concurrency=9, liveness=probe))["status"]["url"]
    first = cloud_run.http.get(url).json()["pid"]
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold, url, held)
        eventually(lambda: pids(held))
        cloud_run.http.get(f"{url}/fall_sick")
        assert holding.result().status_code == 503
    eventually(lambda: starts(cloud_run, "frail") == 2)
    assert cloud_run.http.get(url).json()["pid"] != first
    assert not is_alive(first)
    assert (
        'LIVENESS HTTP probe failed 2 times consecutively for container "app-1" on port 8080 path '
        '"/alive". The instance has been shut down.' in texts(cloud_run, "frail")
    )


def test_an_instance_that_fails_its_tcp_liveness_probe_is_killed_and_replaced(cloud_run, image):
    probe = {"tcpSocket": {}, "periodSeconds": 1, "failureThreshold": 1}
    url = cloud_run.ready(scaled("deaf", image, concurrency=9, liveness=probe))["status"]["url"]
    first = cloud_run.http.get(url).json()["pid"]
    cloud_run.http.get(f"{url}/go_deaf")
    eventually(lambda: starts(cloud_run, "deaf") == 2)
    assert not is_alive(first)
    assert any("LIVENESS TCP probe failed 1 time" in text for text in texts(cloud_run, "deaf"))
    assert cloud_run.http.get(url).json()["pid"] != first


def test_a_healthy_instance_is_not_replaced(cloud_run, image):
    probe = {"httpGet": {"path": "/log?probed"}, "periodSeconds": 1, "failureThreshold": 1}
    url = cloud_run.ready(scaled("sound", image, liveness=probe))["status"]["url"]
    first = cloud_run.http.get(url).json()["pid"]
    eventually(lambda: texts(cloud_run, "sound").count("probed") == 2)
    assert cloud_run.http.get(url).json()["pid"] == first


def test_a_caller_who_hangs_up_during_an_answer_frees_its_room(cloud_run, image):
    url = cloud_run.ready(scaled("streamed", image, most=1))["status"]["url"]
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port), timeout=60) as link:
        link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert link.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert cloud_run.http.get(url, timeout=60).status_code == 200
