"""What an instance sees of this machine, and how it ends, in a sandbox and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from emulator.instances.fixed_ports import is_named
from emulator.instances.network import missing
from emulator.instances.sandbox import NoSandbox, Sandbox
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, condition, container, eventually, service

# It runs the shell command in the query. The last argument marks its processes.
APP = b"""
import http.server, os, signal, subprocess, sys, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        command = urllib.parse.unquote(self.path.partition("?")[2])
        ran = subprocess.run(["sh", "-c", command], capture_output=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ran.stdout + ran.stderr)
    def log_message(self, *_):
        pass
def end(*_):
    print("ending politely", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
port = int(os.environ.get("FIXED") or os.environ["PORT"])
http.server.ThreadingHTTPServer(("", port), Handler).serve_forever()
"""
PYTHON = f"usr/local/lib/python3.{sys.version_info.minor}/site-packages"
FILES = {
    "app/main.py": APP,
    "app/data.txt": b"data of the image\n",
    "bin/own-tool": b"#!/bin/sh\necho a tool\n",
    "etc/app.conf": b"a setting\n",
    "usr/share/app/page": b"a page\n",
    f"{PYTHON}/of_the_image.py": b"print('a package')\n",
}
# Where a developer's credentials and engine are said to be.
DEVELOPERS = {
    "CLOUDSDK_CONFIG": "/developer/gcloud",
    "CLOUDSDK_CORE_PROJECT": "a-real-project",
    "GOOGLE_APPLICATION_CREDENTIALS": "/developer/key.json",
    "DOCKER_HOST": "unix:///nowhere/docker.sock",
}


def _no_sandbox() -> str:
    try:
        Sandbox.find()
    except NoSandbox as error:
        return str(error)
    return ""


NO_SANDBOX = _no_sandbox()
needs_sandbox = pytest.mark.skipif(bool(NO_SANDBOX), reason=f"left out: {NO_SANDBOX}")
NO_NETWORK = missing(NO_SANDBOX)
needs_network = pytest.mark.skipif(bool(NO_NETWORK), reason=f"left out: {NO_NETWORK}")
SANDBOX = pytest.param("auto", marks=needs_sandbox)
in_a_sandbox = pytest.mark.parametrize("place", [SANDBOX], indirect=True)
without_one = pytest.mark.parametrize("place", ["none"], indirect=True)
# Its tests share a local Cloud Run for each of the two ways.
pytestmark = pytest.mark.xdist_group("sandbox")


@contextmanager
def _developers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in DEVELOPERS.items():
            patch.setenv(name, value)
        yield


class Place:
    """A local Cloud Run of a developer who is logged in to Google and uses Docker."""

    def __init__(self, folder: Path, mode: str) -> None:
        with _developers():
            self.cloud_run = LocalCloudRun(folder / "state", "--sandbox", mode, docker=True)
        self.client = CloudRun(self.cloud_run.url)
        self.mark = f"marked-{folder.name}-{os.getpid()}"
        self.config = {"Cmd": ["python", "main.py", self.mark]}
        self.image = self.client.push("explorer", files=FILES, config=self.config)

    def start_again(self) -> None:
        with _developers():
            self.cloud_run.start()

    def ready(self, document: dict[str, Any]) -> str:
        """Make a service ready; returns its URL."""
        return str(self.client.ready(document)["status"]["url"])

    def failed(self, document: dict[str, Any]) -> str:
        """Make a service fail; returns the message."""
        self.client.create(document)
        ready = condition(self.client.settled(document["metadata"]["name"]))
        assert ready["status"] == "False"
        return str(ready["message"])

    def texts(self, name: str) -> list[str]:
        """Return the log of a service."""
        answer = self.client.logs(f'resource.labels.service_name="{name}"').json()
        return [entry.get("textPayload", "") for entry in answer.get("entries", [])]

    def processes(self) -> set[int]:
        """Return the processes of the instances, as this machine numbers them."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.mark.encode() in path.read_bytes():
                    found.add(int(path.parent.name))
            except OSError:
                continue
        return found


def run(url: str, command: str) -> str:
    """Return what a shell command prints in an instance."""
    return requests.get(f"{url}/?{quote(command)}", timeout=60).text


@pytest.fixture(scope="module", params=[SANDBOX, "none"])
def place(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp(f"sandbox-{request.param}"), request.param)
    yield made
    made.cloud_run.stop()


@pytest.fixture(scope="module")
def url(place: Place) -> str:
    """The URL of a service that runs commands."""
    return place.ready(service("explorer", place.image, "explorer-a"))


def test_a_developers_login_configuration_and_engine_are_not_passed_on(
    place: Place, url: str
) -> None:
    shown = run(url, "env")
    assert not any(value in shown for value in DEVELOPERS.values())
    home = run(url, "echo ~").strip()
    assert Path(home) != Path.home()
    assert run(url, "find ~").split() == [home]
    assert "GCE_METADATA_IP=127.0.0.1:" in shown


def test_packages_of_the_image_are_found(url: str) -> None:
    assert run(url, "python -c 'import of_the_image'") == "a package\n"
    assert run(url, "python3 -c 'import yaml' 2>&1 | tail -1").startswith("ModuleNotFoundError")


@in_a_sandbox
def test_files_are_at_their_own_paths(url: str) -> None:
    """Those of the image, over those of this machine."""
    assert run(url, "pwd; cat /app/data.txt") == "/app\ndata of the image\n"
    assert run(url, "cat /etc/app.conf /usr/share/app/page") == "a setting\na page\n"
    assert run(url, "sh /bin/own-tool && sh /usr/bin/own-tool") == "a tool\na tool\n"
    assert run(url, "ls /usr/bin/env /usr/lib >/dev/null && echo there") == "there\n"


@in_a_sandbox
def test_other_files_and_processes_are_not_there(url: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    hidden = [tmp_path, Path(__file__), "/var/run/docker.sock", "/run/docker.sock", "/mnt"]
    for path in hidden:
        assert "No such file" in run(url, f"ls {path}")
    numbers = run(url, "ls -d /proc/[0-9]*").split()
    assert len(numbers) < 10
    assert run(url, "hostname 2>/dev/null || cat /proc/sys/kernel/hostname") == "localhost\n"
    # Nothing of this machine can be changed.
    assert "denied" in (said := run(url, "mount -t tmpfs x /usr/lib")) or "permitted" in said


@in_a_sandbox
def test_an_image_cannot_lead_out_of_its_files(place: Place, tmp_path: Path) -> None:
    """What an instance writes into its image leads no later instance, and no start, elsewhere."""
    (tmp_path / "secret").write_text("mine")
    image = place.client.push("escaping", files={**FILES, "app/x": b"1"}, config=place.config)
    first = place.ready(service("escaping", image, "escaping-a"))
    run(first, f"rm -rf /app/x /usr/local/lib; ln -s {tmp_path} /app/x; ln -s / /usr/local/lib")
    second = place.ready(service("escaping", image, "escaping-b"))
    assert "No such file" in run(second, "cat /app/x/secret")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@in_a_sandbox
def test_a_variable_cannot_lead_out_of_the_sandbox(place: Place, tmp_path: Path) -> None:
    """Neither one that is a path of certificates, nor one that goes on after its end."""
    (tmp_path / "secret").write_text("mine")
    named = place.ready(service("named", place.image, SSL_CERT_DIR=str(tmp_path)))
    assert "No such file" in run(named, f"cat {tmp_path}/secret")
    harm = f"x\0--ro-bind\0{tmp_path}\0/loot"
    message = place.failed(service("goes-on", place.image, HARM=harm))
    assert "failed to start" in message
    assert "The environment variable HARM has a NUL character." in place.texts("goes-on")


def test_words_that_no_process_can_get_are_refused(place: Place) -> None:
    for number, words in enumerate((["main.py", "a\0b"], ["a\0b"])):
        document = service(f"words-{number}", place.image)
        container(document).update(command=["python"], args=words)
        place.failed(document)
        assert any("has a NUL character" in text for text in place.texts(f"words-{number}"))


@in_a_sandbox
def test_the_metadata_server_has_its_name(url: str) -> None:
    """Where this user may listen on port 80."""
    allowed = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if os.getuid() and allowed > 80:
        pytest.skip("this user may not listen on port 80")
    ask = "import urllib.request as u; print(u.urlopen('http://metadata.google.internal').status)"
    assert run(url, f'python -c "{ask}"') == "200\n"


@in_a_sandbox
def test_the_images_user_runs_it(place: Place) -> None:
    config = {**place.config, "User": "12:34"}
    image = place.client.push("user", files=FILES, config=config)
    assert run(place.ready(service("user", image)), "id -u") == "12\n"


def test_another_python_than_the_dockerfiles_is_named(place: Place) -> None:
    labels = {"dev.shipway.builder": "pack", "dev.shipway.python": "3.1"}
    image = place.client.push("old", files=FILES, config={**place.config, "Labels": labels})
    place.ready(service("old", image, "old-one"))
    [line] = [text for text in place.texts("old") if "The Dockerfile names Python 3.1." in text]
    assert f"3.{sys.version_info.minor}." in line
    revision = place.client.revision("old-one")
    healthy = condition(revision, "ContainerHealthy")
    assert (healthy["status"], healthy["severity"], healthy["message"]) == ("True", "Warning", line)


def test_an_image_of_docker_needs_an_engine(place: Place) -> None:
    image = place.client.push("foreign", config={"Labels": {}})
    message = place.failed(service("foreign", image))
    assert "only Docker can run it here" in message
    assert "No Docker engine answers at unix:///nowhere/docker.sock" in message
    assert "Start Docker" in message


def test_an_app_on_another_port_is_named_soon(place: Place) -> None:
    document = service("elsewhere", place.image, FIXED="0")
    ready = place.failed(document)
    assert "It listens on " in ready
    assert "; $PORT was " in ready
    assert "PORT=8080" in ready


@needs_network
@in_a_sandbox
def test_instances_listen_on_one_fixed_port_side_by_side(place: Place) -> None:
    """Each has a network of its own, from which it reaches the local Cloud Run."""
    documents = [service(f"fixed-{name}", place.image, FIXED="8123") for name in "ab"]
    urls = []
    for document in documents:
        container(document)["ports"] = [{"containerPort": 8123}]
        urls.append(place.ready(document))
    assert [run(url, "echo $PORT $K_SERVICE") for url in urls] == [
        "8123 fixed-a\n",
        "8123 fixed-b\n",
    ]
    endpoint = run(urls[0], "echo $SECRET_MANAGER_ENDPOINT").strip()
    assert endpoint == place.cloud_run.url
    for address in (endpoint, urls[1], "http://metadata.google.internal"):
        ask = f"import urllib.request as u; print(u.urlopen('{address}').status)"
        assert run(urls[0], f'python -c "{ask}"') == "200\n"
    with pytest.raises(requests.ConnectionError):
        requests.get("http://127.0.0.1:8123", timeout=60)


@without_one
def test_without_a_network_of_its_own_only_one_has_a_fixed_port(place: Place) -> None:
    first, second = (service(f"only-{name}", place.image, FIXED="8124") for name in "ab")
    for document in (first, second):
        container(document)["ports"] = [{"containerPort": 8124}]
    assert run(place.ready(first), "echo $K_SERVICE") == "only-a\n"
    message = place.failed(second)
    assert "port 8124 of this machine is in use" in message
    assert "PORT=8124" in message


def test_instances_end_with_the_local_cloud_run(place: Place, url: str) -> None:
    run(url, "sleep 1000 >/dev/null 2>&1 & echo")
    before = place.processes()
    assert before
    place.cloud_run.stop()
    place.cloud_run.arguments += ("--port", place.cloud_run.url.rpartition(":")[2])
    assert eventually(lambda: not place.processes())
    assert "ending politely" in json.dumps(
        [path.read_text() for path in place.cloud_run.state.rglob("explorer-a.jsonl")]
    )
    place.start_again()
    client = CloudRun(place.cloud_run.url)
    run(client.get("explorer")["status"]["url"], "true")
    assert place.processes()
    place.cloud_run.stop(signal.SIGKILL)
    assert eventually(lambda: not place.processes())
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(place.cloud_run.state) not in listed.stdout
    place.start_again()  # for the other tests


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("0.0.0.0:8080", True),
        ("--port=8080", True),
        ("8080", True),
        ("gunicorn --bind :8080 main:app", True),
        ("gunicorn --bind :${PORT:-8080} main:app", False),
        ("18080", False),
        ("1.8080", False),
    ],
)
def test_a_command_that_names_the_port_is_known_before_it_runs(word: str, named: bool) -> None:
    assert is_named(["app", word], 8080) is named
