"""Compare the sample's image with that of a usual tutorial, for tests/bench.py, on one engine.

The tutorial is what a search finds: FROM python:3.13-slim, pip install -r, COPY . ., python app.py
with Flask's own server, built with --no-cache.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from tests.conftest import LocalCloudRun
from tests.meter import Meter
from tests.scripts.docker_help import missing, name_the_base_by_tag

BASE, TUTORIAL_BASE = "python:3.13-slim-trixie", "python:3.13-slim"
DOCKERFILE = f"""\
FROM {TUTORIAL_BASE}
WORKDIR /app
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY . .
CMD ["python", "app.py"]
"""
SERVER = """\
import os

from web import create_app

app = create_app()

if __name__ == "__main__":
    app.run(host="0.0.0.0", port=int(os.environ.get("PORT", 8080)))
"""
# As the sample's service.yaml has it.
LIMITS = ["--cpus=1", "--memory=512m"]
KINDS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)

Say = Callable[[str, str, str, bool], None]
Seconds = Callable[[Callable[[], None]], float]


def measure(
    clone: Path,
    folder: Path,
    ship: Callable[..., None],
    seconds: Seconds,
    say: Say,
    rounds: int = 3,
) -> None:
    """Build, push, start and load both.

    Args:
        clone: a repository with the sample, to commit to.
        folder: for the tutorial and the state of a local Cloud Run, whose registry both use.
        ship: runs the command line in the clone, with `endpoint=` as the address that it uses.
        seconds, say: of tests/bench.py.
        rounds: how often a code change is built, in turns.
    """
    if reason := missing():
        print(f"left out: {reason}")
        return
    with Both(clone, folder, ship) as both:
        both.build_ours()
        both.build_tutorial()
        took: dict[str, list[float]] = {"ours": [], "theirs": []}
        sent: dict[str, list[int]] = {"ours": [], "theirs": []}
        builds = {"ours": both.build_ours, "theirs": both.build_tutorial}
        for _ in range(rounds):
            both.change()
            both.forget()  # as on a fresh runner: only the registry knows what was built before
            for name, build in builds.items():
                before = both.meter.sent
                took[name].append(seconds(build))
                sent[name].append(both.meter.sent - before)
        pushed = [statistics.median(sent[name]) for name in builds]
        _compare(say, "image: a code change pushes", pushed, "kB", 1 / 1000, 0.1)
        _compare(say, "image: a code change takes", [statistics.median(took[n]) for n in builds],
                 "s", 1, 0.7)  # fmt: skip
        images = [both.ours, both.theirs]
        sizes = [both.size(image) for image in images]
        _compare(say, "image: size in the registry", sizes, "MB", 1e-6, 1)
        starts = _in_turns(both.start, images, 9)
        _compare(say, "image: start to first 200", starts, "s", 1, 1)
        if not shutil.which("wrk"):
            print("left out: wrk is not installed")
            return
        ours, theirs = _in_turns(both.rate, images, 3)
        ratio = ours / theirs
        say("image: requests a second, 1 CPU, 32 connections / tutorial",
            f"{ours:.0f} / {theirs:.0f} = {ratio:.2f}", "above 1.00", ratio > 1)  # fmt: skip


def _compare(say: Say, what: str, pair: list[float], unit: str, scale: float, limit: float) -> None:
    ours, theirs = pair
    ratio = ours / theirs
    say(f"{what} / tutorial",
        f"{ours * scale:.2f} {unit} / {theirs * scale:.2f} {unit} = {ratio:.3f}",
        f"at most {limit:.2f}", ratio <= limit)  # fmt: skip


def _in_turns(action: Callable[[str], float], images: list[str], rounds: int) -> list[float]:
    """Return the median of each image, measured in turns."""
    taken: list[list[float]] = [[], []]
    for _ in range(rounds):
        for values, image in zip(taken, images, strict=True):
            values.append(action(image))
    return [statistics.median(values) for values in taken]


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr[-2000:]}")
    return done.stdout.strip()


class Both:
    """Both images, in one registry behind one meter; gone again at the end."""

    def __init__(self, clone: Path, folder: Path, ship: Callable[..., None]) -> None:
        self._clone, self._ship = clone, ship
        self._tutorial = folder / "tutorial"
        self._cloud_run = LocalCloudRun(folder / "image-registry")
        self.meter = Meter(self._cloud_run.url)
        self._host = self.meter.url.removeprefix("http://")
        self.ours = self.theirs = ""
        self._number = 0
        self._known = set(self._records())
        self._tagged = False
        name_the_base_by_tag(clone / "app/Dockerfile")  # the same base image for both
        # A line that no dependency layer was ever made with: nothing comes from an older build.
        with (clone / "app/requirements.txt").open("a") as lock:
            lock.write(f"# {self._host} {time.time()}\n")
        self._tutorial.mkdir()
        shutil.copytree(clone / "app/web", self._tutorial / "web")
        shutil.copy(clone / "app/requirements.txt", self._tutorial)
        (self._tutorial / "Dockerfile").write_text(DOCKERFILE)
        (self._tutorial / "app.py").write_text(SERVER)
        self.change()

    def __enter__(self) -> Both:
        there = subprocess.run(["docker", "image", "inspect", TUTORIAL_BASE], capture_output=True)
        if there.returncode:
            _docker("tag", BASE, TUTORIAL_BASE)
            self._tagged = True
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        if self._tagged:
            _docker("image", "rm", TUTORIAL_BASE)
        self._cloud_run.stop()
        self.meter.close()

    def change(self) -> None:
        """Make the same change of the code in both."""
        self._number += 1
        for folder in (self._clone / "app", self._tutorial):
            with (folder / "web/pages.py").open("a") as page:
                page.write(f"# {self._host} {self._number}\n")
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        git = ["git", "-C", str(self._clone), *identity]
        subprocess.run([*git, "commit", "-q", "-a", "-m", "code"], check=True)
        head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
        self.ours = f"{self._host}/shipway-local/services/app:{head}"
        self.theirs = f"{self._host}/shipway-local/services/tutorial:v{self._number}"

    def build_ours(self) -> None:
        """Build and push the newest commit, as a user or a workflow does."""
        self._ship("build", "--builder", "docker", endpoint=self.meter.url)

    def build_tutorial(self) -> None:
        """Build and push as the tutorials for Arm laptops do."""
        _docker("buildx", "build", "--no-cache", "--platform", "linux/amd64", "--provenance=false",
                "--push", "--tag", self.theirs, str(self._tutorial))  # fmt: skip

    def forget(self) -> None:
        """Remove the images that were built here, and their layers in the engine's cache."""
        named = _docker(
            "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{self._host}/*/*/*"
        )
        if named:
            _docker("image", "rm", "--force", *named.split())
        while ours := [record for record in self._records() if record not in self._known]:
            for record in ours:
                _docker("buildx", "prune", "--force", "--all", "--filter", f"id={record}")
            if set(ours) == set(self._records()) - self._known:
                break  # the rest is in use by someone else

    def _records(self) -> list[str]:
        return re.findall(r"^ID:\s+(\S+)", _docker("buildx", "du", "--verbose"), re.MULTILINE)

    def size(self, image: str) -> float:
        """Return the bytes of the image's layers, as stored and pulled."""
        name, _, tag = image.partition("/")[2].rpartition(":")
        url = f"{self._cloud_run.url}/v2/{name}/manifests/{tag}"
        manifest: Any = requests.get(url, headers={"Accept": ", ".join(KINDS)}, timeout=10).json()
        return float(sum(layer["size"] for layer in manifest["layers"]))

    def start(self, image: str) -> float:
        """Return the time from the start of a container to its first 200, in seconds."""
        with self._container(image) as answers:
            return answers()

    def rate(self, image: str) -> float:
        """Return requests per second."""
        with self._container(image) as answers:
            answers()
            url = f"http://127.0.0.1:{self._port}/version"
            said = subprocess.check_output(["wrk", "-t1", "-c32", "-d4s", url], text=True)
        found = re.search(r"Requests/sec:\s+([\d.]+)", said)
        assert found
        assert "Non-2xx" not in said, said
        return float(found[1])

    @contextlib.contextmanager
    def _container(self, image: str) -> Iterator[Callable[[], float]]:
        """Create a container; yield a function that starts it."""
        made = _docker("create", "--publish=127.0.0.1::8080", "--env=PORT=8080", *LIMITS, image)
        try:
            yield functools.partial(self._started, made)
        finally:
            _docker("rm", "--force", made)

    def _started(self, container: str) -> float:
        began = time.perf_counter()
        _docker("start", container)
        self._port = int(_docker("port", container, "8080").splitlines()[0].rpartition(":")[2])
        while time.perf_counter() - began < 30:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return time.perf_counter() - began
            except (OSError, http.client.HTTPException):
                time.sleep(0.002)  # it does not listen yet
            finally:
                connection.close()
        raise RuntimeError(f"no answer from {container}: {_docker('logs', container)}")
