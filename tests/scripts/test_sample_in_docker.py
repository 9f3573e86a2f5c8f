"""The sample's own image: built by Docker, pushed, deployed as containers, and inspected."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import ROOT, LocalCloudRun, needs_sample
from tests.meter import Meter
from tests.scripts.conftest import Project
from tests.scripts.docker_help import forget_images, name_the_base_by_tag, needs_docker

# One engine: its tests take turns.
pytestmark = [
    needs_docker,
    needs_sample,
    pytest.mark.usefixtures("pypi"),
    pytest.mark.xdist_group("docker-runtime"),
]


def docker(*arguments: str, **options: Any) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def records() -> set[str]:
    """Return the records of the engine's build cache."""
    said = docker("buildx", "du", "--verbose")
    return set(re.findall(r"^ID:\s+(\S+)", said, re.MULTILINE))


class Delivered:
    """Two commits of the sample, the second of which changes only code."""

    def __init__(self, folder: Path) -> None:
        self.cloud_run = LocalCloudRun(folder / "state", "--runtime", "docker", docker=True)
        self.meter = Meter(self.cloud_run.url)
        self.known = records()
        self.project = Project(folder / "repository", self.cloud_run, "app")
        for name in ("app", "pipelines/app"):
            keep = self.project.folder / name
            ignore = shutil.ignore_patterns("__pycache__", "local.yaml")
            shutil.copytree(ROOT / name, keep, dirs_exist_ok=True, ignore=ignore)
        (self.project.folder / "app/server.py").unlink()
        name_the_base_by_tag(self.project.folder / "app/Dockerfile")
        self.project.git("remote", "add", "origin", "git@github.com:acme/app.git")
        # A line that no dependency layer was ever made with: nothing comes from the engine's cache.
        with (self.project.folder / "app/requirements.txt").open("a") as lock:
            lock.write(f"# {folder}\n")
        self.deliveries, self.commits, self.sent = [], [], []
        for _ in range(2):
            with (self.project.folder / "app/web/pages.py").open("a") as code:
                code.write("# a change\n")
            self.commits.append(self.project.commit())
            before = self.meter.sent
            self.deliveries.append(
                self.project.done("deliver", "--builder", "docker", SHIPWAY_ENDPOINT=self.meter.url)
            )
            self.sent.append(self.meter.sent - before)
        host = self.meter.url.removeprefix("http://")
        self.image = f"{host}/shipway-local/services/app:{self.commits[1]}"

    def manifest(self, commit: str) -> Any:
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        url = f"{self.cloud_run.url}/v2/shipway-local/services/app/manifests/{commit}"
        return requests.get(url, headers={"Accept": kind}, timeout=10).json()

    def containers(self) -> Any:
        label = f"label=dev.shipway.state={self.cloud_run.state.resolve()}"
        return json.loads(docker("inspect", *docker("ps", "-q", "--filter", label).split()))

    def forget(self) -> None:
        """Remove the images and the engine's cache entries that were made since the start."""
        host = self.meter.url.removeprefix("http://")
        named = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{host}/*/*/*")
        docker("image", "rm", "--force", *named.split()) if named else None
        while new := records() - self.known:
            for record in new:
                docker("buildx", "prune", "--force", "--all", "--filter", f"id={record}")
            if records() - self.known == new:
                break  # in use by someone else

    def within(self, *command: str) -> str:
        """Return the output of a command in a container of the image."""
        return docker("run", "--rm", "--entrypoint", command[0], self.image, *command[1:])

    def close(self) -> None:
        self.cloud_run.stop()
        self.meter.close()
        for url in (self.cloud_run.url, self.meter.url):
            forget_images(url)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    made = Delivered(tmp_path_factory.mktemp("sample"))
    yield made
    made.close()


def test_delivered_by_digest_and_smoke_checked(delivered: Delivered) -> None:
    project, (first, second) = delivered.project, delivered.commits
    assert project.shares() == {project.revision(second): 100}
    assert project.answers()["commit"] == second
    assert [done["commit"] for done in delivered.deliveries] == [first, second]
    digest = delivered.deliveries[1]["digest"]
    template = project.service()["spec"]["template"]["spec"]
    assert template["containers"][0]["image"].endswith(f"@{digest}")
    running = {item["Config"]["Image"].partition("@")[2] for item in delivered.containers()}
    assert digest in running


def test_a_code_only_commit_pushes_one_layer_and_under_a_hundredth(delivered: Delivered) -> None:
    first, second = (delivered.manifest(commit)["layers"] for commit in delivered.commits)
    assert [layer["digest"] for layer in first[:-1]] == [layer["digest"] for layer in second[:-1]]
    assert first[-1]["digest"] != second[-1]["digest"]
    size = sum(layer["size"] for layer in second)
    assert second[-1]["size"] < size / 100
    # And nothing else went over the wire either: all requests of the second delivery together.
    assert delivered.sent[0] > size
    assert delivered.sent[1] < size / 100


def test_its_labels_name_the_commit_and_the_repository(delivered: Delivered) -> None:
    labels = json.loads(docker("image", "inspect", delivered.image))[0]["Config"]["Labels"]
    seconds = int(delivered.project.git("show", "-s", "--format=%ct", delivered.commits[1]))
    made = datetime.fromtimestamp(seconds, UTC).isoformat()
    assert labels["org.opencontainers.image.revision"] == delivered.commits[1]
    assert labels["org.opencontainers.image.source"] == "https://github.com/acme/app"
    assert labels["org.opencontainers.image.created"] == made


def test_process_1_is_gunicorn_itself_and_not_root(delivered: Delivered) -> None:
    containers = delivered.containers()
    assert containers
    for container in containers:
        assert container["Config"]["User"] == "65532:65532"
        status = docker("exec", container["Id"], "cat", "/proc/1/status")
        command = docker("exec", container["Id"], "cat", "/proc/1/cmdline").split("\0")
        assert command[0] == "python"
        assert "start.py" in command
        assert "Uid:\t65532\t65532\t65532\t65532" in status


def test_it_runs_on_a_read_only_disk_without_rights(delivered: Delivered) -> None:
    started = docker(
        "run", "--detach", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--publish=127.0.0.1::8080", delivered.image,
    )  # fmt: skip
    try:
        where = docker("port", started, "8080").splitlines()[0]
        with requests.Session() as session:
            retry = requests.adapters.Retry(total=8, backoff_factor=0.1, backoff_max=1)
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
            assert session.get(f"http://{where}/health", timeout=10).json() == {"status": "ok"}
            assert "<title>" in session.get(f"http://{where}/", timeout=10).text
        docker("stop", "--time=10", started)
        assert docker("wait", started) == "0"  # it ends by itself when asked to
    finally:
        docker("rm", "--force", started)


def test_it_holds_only_files_that_run(delivered: Delivered) -> None:
    files = delivered.within("python", "-c", "import os; print(sorted(os.listdir('/app')))")
    assert files == "['gunicorn.conf.py', 'requirements.txt', 'start.py', 'web']"
    look = (
        "import importlib.util as u, shutil, sys;"
        "print([m for m in ('pip', 'ensurepip', 'pytest') if u.find_spec(m)],"
        " [p for p in ('pip', 'pip3', 'gcc', 'cc', 'make', 'git') if shutil.which(p)])"
    )
    assert delivered.within("python", "-c", look) == "[] []"
    left = "find / -xdev -name .cache -o -path '/deps/*' -type d -name 'test*'"
    assert delivered.within("sh", "-c", f"{left} 2>/dev/null || true") == ""


def test_what_runs_is_compiled_and_python_takes_it(delivered: Delivered) -> None:
    """The image's build makes all times equal, so a compiled file must not depend on them."""
    look = (
        "import flask, gunicorn, sys; from pathlib import Path;"
        "print([open(m.__cached__, 'rb').read(8)[4] for m in (flask, gunicorn)])"
    )
    assert delivered.within("python", "-c", look) == "[3, 3]"
    # And the modules of Python's own library, whose compiled files the official image leaves out.
    look = (
        "import gunicorn.app.wsgiapp, gunicorn.glogging, gunicorn.workers.gthread, os, sys, web;"
        "made = {m.__spec__.cached for m in sys.modules.values() if m.__spec__} - {None};"
        "print([path for path in made if '/app/' not in path and not os.path.exists(path)])"
    )
    assert delivered.within("python", "-c", look) == "[]"


def test_from_an_empty_cache_every_layer_but_the_last_comes_from_the_registry(
    delivered: Delivered,
) -> None:
    """As on a fresh runner, three times in a row: an image with reused layers is a source, too."""
    project, known = delivered.project, [layer["digest"] for layer in delivered.manifest(
        delivered.commits[1])["layers"]]  # fmt: skip
    for _ in range(3):
        delivered.forget()
        with (project.folder / "app/web/pages.py").open("a") as code:
            code.write("# a change\n")
        commit = project.commit()
        before = delivered.meter.sent
        done = project.ship("build", "--builder", "docker", SHIPWAY_ENDPOINT=delivered.meter.url)
        assert done.returncode == 0, done.stderr
        layers = delivered.manifest(commit)["layers"]
        assert [layer["digest"] for layer in layers[:-1]] == known[:-1], done.stderr
        assert delivered.meter.sent - before < sum(layer["size"] for layer in layers) / 100
