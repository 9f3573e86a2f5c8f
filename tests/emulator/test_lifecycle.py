"""Instances over time, and the state after the emulator was killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.conftest import BY_PID, ROOT, LocalCloudRun
from tests.emulator.cloud_run_help import condition, eventually, is_alive, service, tag_url


@pytest.fixture
def idle_cloud_run(tmp_path: Path) -> Iterator[LocalCloudRun]:
    """Yield a local Cloud Run that stops an instance after 0.2 s without a request."""
    cloud_run = LocalCloudRun(tmp_path / "state", "--idle", "0.2", *BY_PID)
    yield cloud_run
    cloud_run.stop()


def test_an_idle_instance_is_stopped_and_the_next_request_starts_another(idle_cloud_run, connect):
    client = connect(idle_cloud_run.url)
    url = client.ready(service("sleepy", client.push(), "sleepy-a"))["status"]["url"]
    first = client.http.get(url).json()["pid"]
    assert eventually(lambda: not is_alive(first))
    logs = 'resource.labels.service_name="sleepy" textPayload:*'
    eventually(
        lambda: (
            "got SIGTERM" in [entry["textPayload"] for entry in client.logs(logs).json()["entries"]]
        )
    )
    assert client.http.get(url).json()["pid"] != first


def test_many_first_requests_share_one_cold_start(idle_cloud_run, connect):
    client = connect(idle_cloud_run.url)
    url = client.ready(service("cold", client.push()))["status"]["url"]
    first = client.http.get(url).json()["pid"]
    eventually(lambda: not is_alive(first))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: requests.get(url, timeout=60).json()["pid"], range(16)))
    assert len(set(answers)) == 1


def test_an_open_request_keeps_its_instance(idle_cloud_run, connect):
    client = connect(idle_cloud_run.url)
    image = client.push()
    url = client.ready(service("busy", image, "busy-a"))["status"]["url"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.get, f"{url}/wait", timeout=60)
        assert client.http.get(f"{url}/waiting").json() == {"waiting": True}
        pid = client.http.get(url).json()["pid"]
        tagged = service("busy", image, "busy-b", A="1")
        tagged["spec"]["traffic"] = [
            {"revisionName": "busy-b", "percent": 100},
            {"revisionName": "busy-a", "tag": "old"},
        ]
        old = tag_url(client.ready(tagged), "old")
        # Long enough for an idle instance to stop: busy-b stops, and busy-a does not.
        other = client.http.get(url).json()["pid"]
        eventually(lambda: not is_alive(other))
        assert is_alive(pid)
        client.http.get(f"{old}/release")
        assert waiting.result().json() == {"revision": "busy-a"}
    assert eventually(lambda: not is_alive(pid))


def test_a_minimum_of_instances_is_kept_running(idle_cloud_run, connect):
    client = connect(idle_cloud_run.url)
    image = client.push()
    document = service("warm", image, "warm-a")
    annotations = {"autoscaling.knative.dev/minScale": "1"}
    document["spec"]["template"]["metadata"]["annotations"] = annotations
    warm = client.http.get(client.ready(document)["status"]["url"]).json()["pid"]
    idle = client.http.get(client.ready(service("idle", image))["status"]["url"]).json()["pid"]
    eventually(lambda: not is_alive(idle))
    assert is_alive(warm)
    os.kill(warm, signal.SIGKILL)
    logs = 'resource.labels.service_name="warm" textPayload="Container terminated on signal 9."'
    assert eventually(lambda: client.logs(logs).json()["entries"])
    started = 'resource.labels.service_name="warm" logName!="x" severity=INFO'
    assert eventually(lambda: len(client.logs(started).json()["entries"]) == 2)


def test_acknowledged_writes_survive_a_kill(fresh_cloud_run, connect):
    client = connect(fresh_cloud_run.url)
    image = client.push()
    client.ready(service("lasting", image, "lasting-a"))
    second = service("lasting", image, "lasting-b", A="1")
    second["spec"]["traffic"] = [
        {"revisionName": "lasting-a", "percent": 100},
        {"revisionName": "lasting-b", "tag": "next"},
    ]
    before = client.ready(second)
    policy = {"policy": {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]}}
    at = f"{client.base}/services/lasting"
    policy = client.http.post(f"{at}:setIamPolicy", json=policy).json()
    entries = client.logs('resource.labels.service_name="lasting"').json()
    pids = [client.http.get(before["status"]["url"]).json()["pid"]]
    pids.append(client.http.get(tag_url(before, "next")).json()["pid"])
    fresh_cloud_run.stop(signal.SIGKILL)
    fresh_cloud_run.start()
    client = connect(fresh_cloud_run.url)
    assert not any(is_alive(pid) for pid in pids)
    assert client.get("lasting") == before
    assert condition(client.revision("lasting-b"))["status"] == "True"
    assert client.http.get(f"{client.base}/services/lasting:getIamPolicy").json() == policy
    assert client.logs('resource.labels.service_name="lasting"').json() == entries
    assert client.http.get(before["status"]["url"]).json()["revision"] == "lasting-a"
    assert client.http.get(tag_url(before, "next")).json()["revision"] == "lasting-b"


def test_a_revision_that_was_starting_starts_again(fresh_cloud_run, connect):
    client = connect(fresh_cloud_run.url)
    document = service("slowly", client.push(), "slowly-a", HANG="1")
    assert client.create(document).status_code == 200
    fresh_cloud_run.stop(signal.SIGKILL)
    fresh_cloud_run.start()
    client = connect(fresh_cloud_run.url)
    assert condition(client.get("slowly"))["status"] == "Unknown"
    client.ready(service("slowly", client.push(), "slowly-b"))


def test_writes_survive_a_kill_at_any_moment(fresh_cloud_run, connect):
    """I3: killed anywhere, the old plan or the new one is in force."""
    client = connect(fresh_cloud_run.url)
    image = client.push()
    client.ready(service("hammered", image, "hammered-a"))
    acknowledged: list[int] = []

    def write() -> None:
        number = 0
        try:
            while True:
                number += 1
                document = service("hammered", image, "hammered-a")
                document["metadata"]["annotations"] = {"number": str(number)}
                if client.replace(document).status_code == 200:
                    acknowledged.append(number)
        except requests.ConnectionError:
            return

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: len(acknowledged) > 20)
    fresh_cloud_run.stop(signal.SIGKILL)
    writer.join()
    fresh_cloud_run.start()
    client = connect(fresh_cloud_run.url)
    number = int(client.get("hammered")["metadata"]["annotations"]["number"])
    assert number in (acknowledged[-1], acknowledged[-1] + 1)


def test_a_service_moves_from_a_port_that_is_in_use_after_a_restart(fresh_cloud_run, connect):
    client = connect(fresh_cloud_run.url)
    before = client.ready(service("mover", client.push()))["status"]["url"]
    fresh_cloud_run.stop()
    with socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))):
        fresh_cloud_run.start()
        client = connect(fresh_cloud_run.url)
        moved = eventually(
            lambda: [url for url in [client.get("mover")["status"]["url"]] if url != before]
        )
        assert client.http.get(moved[0]).status_code == 200


def test_a_signal_stops_the_instances_and_ends_with_success(fresh_cloud_run, connect):
    client = connect(fresh_cloud_run.url)
    url = client.ready(service("ending", client.push()))["status"]["url"]
    pid = client.http.get(url).json()["pid"]
    fresh_cloud_run.stop(signal.SIGINT)
    assert fresh_cloud_run.process.returncode == 0
    assert not is_alive(pid)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emulator", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_port_or_a_state_folder_in_use_is_one_line_and_code_2(fresh_cloud_run, tmp_path):
    port = fresh_cloud_run.url.rpartition(":")[2]
    taken = run("--port", port, "--state", str(tmp_path / "other"))
    assert (taken.returncode, taken.stdout) == (2, "")
    assert taken.stderr.count("\n") == 1
    assert port in taken.stderr
    shared = run("--port", "0", "--state", str(fresh_cloud_run.state))
    assert (shared.returncode, shared.stdout) == (2, "")
    assert shared.stderr.count("\n") == 1
    assert str(fresh_cloud_run.state) in shared.stderr
