"""The docker runtime: instances as containers of the image itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import ROOT, LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, condition, container, eventually, service
from tests.emulator.test_builds import DOCKER, Place
from tests.scripts.docker_help import needs_docker

BASE = "python:3.13-slim-trixie"
DOCKERFILE = f"""\
FROM {BASE}
WORKDIR /srv
COPY container_app.py main.py
ENV FROM_IMAGE=yes
HEALTHCHECK CMD ["false"]
CMD ["python", "main.py"]
"""

# One engine: its tests take turns.
pytestmark = pytest.mark.xdist_group("docker-runtime")


def docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


def forget(*images: str) -> None:
    """Remove images from the engine, if they exist."""
    subprocess.run(["docker", "image", "rm", *images], capture_output=True, timeout=60, check=False)


class Engine:
    """A local Cloud Run with the docker runtime, and its containers in the engine."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.cloud_run = LocalCloudRun(self.state, "--runtime", "docker", docker=True)
        self.client = CloudRun(self.cloud_run.url)
        self.images: list[str] = []

    def push(self, context: Path, app: str = "container_app.py") -> str:
        """Build and push an image of `app` in this folder; returns its reference by digest."""
        (context / "Dockerfile").write_text(DOCKERFILE)
        (context / "container_app.py").write_bytes((Path(__file__).parent / app).read_bytes())
        name = f"{self.cloud_run.url.removeprefix('http://')}/acme/images/{uuid.uuid4().hex}"
        docker("build", "--quiet", "--tag", name, str(context))
        docker("push", "--quiet", name)
        # The engine may have the same image from another local Cloud Run.
        named = docker("image", "inspect", "--format", "{{json .RepoDigests}}", name)
        reference = next(str(item) for item in json.loads(named) if item.startswith(f"{name}@"))
        # Then the instances' image has to be pulled.
        forget(name, reference)
        self.images.append(reference)
        return reference

    def containers(self, revision: str = "") -> list[dict[str, Any]]:
        """Return the containers of this local Cloud Run, or of one revision."""
        label = f"dev.shipway.state={self.state.resolve()}"
        found = docker("ps", "--all", "--quiet", "--filter", f"label={label}").split()
        # One of them may be gone by now: docker still shows the rest.
        shown = subprocess.run(["docker", "inspect", *found], capture_output=True, check=False)
        return [
            item
            for item in json.loads(shown.stdout or "[]")
            if item["Config"]["Labels"]["dev.shipway.revision"].endswith(revision)
        ]

    def texts(self, name: str) -> list[str]:
        answer = self.client.logs(f'resource.labels.service_name="{name}"').json()
        return [entry.get("textPayload", "") for entry in answer.get("entries", [])]

    def close(self) -> None:
        self.client.http.close()
        self.cloud_run.stop()
        forget(*self.images)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("docker-runtime"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def container_image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    return engine.push(tmp_path_factory.mktemp("context"))


def limited(name: str, image: str, memory: str = "128Mi", **env: str) -> dict[str, Any]:
    document = service(name, image, f"{name}-a", **env)
    container(document)["resources"] = {"limits": {"memory": memory, "cpu": "1000m"}}
    return document


@needs_docker
def test_a_build_with_docker_reads_its_source_only(engine: Engine, tmp_path: Path) -> None:
    """A step may name an absolute folder: it is one of the source, not of this machine."""
    (tmp_path / "secret").write_text("mine")
    place = Place(engine.client.url)
    words = ["build", "--file", "Dockerfile", "--tag", "x", str(tmp_path)]
    source = place.source("FROM scratch\nADD secret /\n", folder=str(tmp_path))
    build = place.build(source=source, images=[], steps=[{"name": DOCKER, "args": words}])
    assert build["status"] == "FAILURE"
    assert '"/secret"' in requests.get(build["logUrl"], timeout=60).text


@needs_docker
def test_a_silent_step_in_docker_ends_with_its_build(engine: Engine, container_image: str) -> None:
    place = Place(engine.client.url)
    dockerfile = f"FROM {BASE}\nRUN echo begins; sleep 1000\n"
    build = place.build(dockerfile, timeout="3s")
    assert build["status"] == "TIMEOUT"


@needs_docker
def test_an_instance_is_a_container_with_the_manifests_limits_and_variables(
    engine: Engine, container_image: str
) -> None:
    document = limited("boxed", container_image, SECRET="two\nlines")
    ready = engine.client.ready(document)
    seen = requests.get(ready["status"]["url"], timeout=60).json()
    env = seen["env"]
    assert seen["cwd"] == "/srv"
    assert (env["PORT"], env["FROM_IMAGE"], env["SECRET"]) == ("8080", "yes", "two\nlines")
    assert (env["K_SERVICE"], env["K_REVISION"]) == ("boxed", "boxed-a")
    # Containers do not reach the addresses in these.
    endpoints = {"GCE_METADATA_HOST", "SECRET_MANAGER_ENDPOINT", "GOOGLE_VERTEX_BASE_URL"}
    assert not env.keys() & endpoints
    (running,) = engine.containers("boxed-a")
    host = running["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (128 * 1024**2, 128 * 1024**2)
    assert host["NanoCpus"] == 10**9
    assert running["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostIp"] == "127.0.0.1"
    assert "Health" not in running["State"]
    assert running["Config"]["Image"] == container_image


@needs_docker
def test_the_output_of_a_container_is_in_the_logs(engine: Engine, container_image: str) -> None:
    url = engine.client.ready(limited("telling", container_image))["status"]["url"]
    requests.get(f'{url}/log?{{"severity":"error","message":"boom"}}', timeout=60)
    eventually(lambda: "boom" in engine.texts("telling"))
    assert any("STARTUP TCP probe succeeded" in text for text in engine.texts("telling"))


@needs_docker
def test_a_container_that_ends_or_never_listens_fails_its_revision(
    engine: Engine, container_image: str
) -> None:
    """The engine accepts connections for a container that does not listen: probes still fail."""
    ending = limited("ending", container_image, FAIL="7")
    silent = limited("silent", container_image, HANG="1")
    container(silent)["startupProbe"] = {"periodSeconds": 2, "failureThreshold": 1, "tcpSocket": {}}
    absent = limited("absent", container_image)
    container(absent)["command"] = ["no-such-command"]
    for document in (ending, silent, absent):
        assert engine.client.create(document).status_code == 200
    for name in ("ending", "silent", "absent"):
        ready = condition(engine.client.settled(name))
        assert (ready["status"], ready["reason"]) == ("False", "HealthCheckContainerError")
        assert engine.containers(f"{name}-a") == []
    assert "no database" in engine.texts("ending")
    assert "Container called exit(7)." in engine.texts("ending")
    assert any("no-such-command" in text for text in engine.texts("absent"))


@needs_docker
@pytest.mark.parametrize("where", ["itself", "child"])
def test_an_instance_that_uses_too_much_memory_is_killed_and_replaced(
    engine: Engine, container_image: str, where: str
) -> None:
    name = f"greedy-{where}"
    url = engine.client.ready(limited(name, container_image))["status"]["url"]
    (first,) = engine.containers(f"{name}-a")
    eaten = requests.get(f"{url}/eat?300{'&child' if where == 'child' else ''}", timeout=60)
    assert eaten.status_code == 503
    eventually(lambda: any("Memory limit of 128 MiB exceeded" in t for t in engine.texts(name)))
    assert "Container terminated on signal 9." in engine.texts(name)
    assert requests.get(url, timeout=60).status_code == 200
    (second,) = engine.containers(f"{name}-a")
    assert second["Id"] != first["Id"]


@needs_docker
def test_a_container_gets_sigterm_and_ten_seconds(engine: Engine, container_image: str) -> None:
    for name, env, line, least in (
        ("polite", {}, "got SIGTERM", 0.0), ("rude", {"IGNORE_TERM": "1"}, "ignoring SIGTERM", 9.0),
    ):  # fmt: skip
        engine.client.ready(limited(name, container_image, **env))
        assert engine.containers(f"{name}-a")
        began = time.monotonic()
        engine.client.http.delete(f"{engine.client.base}/services/{name}")
        eventually(lambda name=name: not engine.containers(f"{name}-a"))
        assert time.monotonic() - began >= least
        eventually(lambda name=name, line=line: line in engine.texts(name))


@needs_docker
def test_each_image_runs_as_it_has_to_whatever_the_runtime(
    engine: Engine, container_image: str
) -> None:
    packed = engine.client.push("packed")
    made = engine.client.ready(service("mixed", packed, "mixed-packed"))
    containers = {item["Id"] for item in engine.containers("mixed-packed")}
    assert containers == set()
    assert requests.get(made["status"]["url"], timeout=60).json()["revision"] == "mixed-packed"
    engine.client.ready(limited("mixed", container_image))
    assert len(engine.containers("mixed-a")) == 1
    # A revision that another runtime started serves after a restart, and so after a rollback.
    engine.cloud_run.stop()
    port = engine.cloud_run.url.rpartition(":")[2]
    engine.cloud_run.arguments = ("--runtime", "process", "--port", port)
    engine.cloud_run.start()
    for revision in ("mixed-packed", "mixed-a"):
        moved = engine.client.shift("mixed", [{"revisionName": revision, "percent": 100}])
        answer = requests.get(moved["status"]["url"], timeout=60)
        assert answer.json()["revision"] == revision


@needs_docker
def test_containers_of_a_killed_emulator_are_removed_at_the_next_start(
    engine: Engine, container_image: str
) -> None:
    engine.client.ready(limited("left", container_image))
    left = {item["Id"] for item in engine.containers()}
    engine.cloud_run.stop(signal.SIGKILL)
    assert {item["Id"] for item in engine.containers()} == left
    # On the same port, so that the pushed image keeps its name: another push takes ten seconds.
    port = engine.cloud_run.url.rpartition(":")[2]
    engine.cloud_run.arguments = ("--port", port)
    engine.cloud_run.start()
    assert eventually(lambda: not left & {item["Id"] for item in engine.containers()})
    engine.cloud_run.stop()
    assert engine.containers() == []
    engine.cloud_run.start()


@pytest.mark.parametrize(
    ("command", "host", "words"),
    [
        (["-m", "emulator"], "unix:///nowhere/docker.sock", "No Docker engine answers"),
        (["scripts", "up"], "unix:///nowhere/docker.sock", "No Docker engine answers"),
        (["-m", "emulator"], "ssh://host", "Use one at unix://"),
    ],
)
def test_a_missing_engine_is_one_line_and_code_2(
    tmp_path: Path, command: list[str], host: str, words: str
) -> None:
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    refused = run(
        [sys.executable, *command, "--port", "0", "--state", str(tmp_path), "--runtime", "docker"],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": host},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert words in refused.stderr
