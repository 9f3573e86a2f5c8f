"""Measure Shipway's speed side by side with other tools in one run (`nox -s bench`).

Figures are ratios or limits, each printed with its conditions; nothing here is a test.
A part whose program (gcloud, wrk, docker, docker-registry) is missing is reported and skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from scripts import HOME
from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests import (
    bench_first_hour,
    bench_image,
    bench_latency,
    bench_scale,
    bench_several,
    bench_watch,
)
from tests.clients.test_gcloud import Gcloud
from tests.conftest import FOR_GCLOUD, LocalCloudRun

SERVICE = "/v1/projects/shipway-local/locations/us-central1/services/app"


class Bench:
    """A scratch clone with two releases of the sample app, on a local Cloud Run."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "clone"
        self.cloud_run = LocalCloudRun(folder / "state", *FOR_GCLOUD)
        self.url = self.cloud_run.url
        subprocess.run(
            ["git", "clone", "--quiet", "--depth", "1", HOME.as_uri(), str(self.clone)], check=True
        )
        self._gcloud = Gcloud(self.url, folder / "gcloud", "shipway-local")
        self.ship("deliver")
        self.revisions = [self.commit()]
        self.ship("deliver")

    def commit(self) -> str:
        """Make a commit that changes only code."""
        with (self.clone / "app/web/pages.py").open("a") as page:
            page.write(f"# {time.time()}\n")
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        subprocess.run(
            ["git", *identity, "commit", "--quiet", "--all", "--message", "code"],
            cwd=self.clone, check=True,
        )  # fmt: skip
        sha = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=self.clone, text=True)
        return f"app-{sha[:7]}"

    def ship(self, *arguments: str, endpoint: str = "") -> None:
        """Run the command line as a whole process, launcher included."""
        subprocess.run(
            [str(HOME / "ship"), *arguments], cwd=self.clone, check=True, capture_output=True,
            env={
                **os.environ,
                ENDPOINT_VARIABLE: endpoint or self.url,
                "SHIPWAY_VENV": sys.prefix,
            },
        )  # fmt: skip

    def gcloud(self, *arguments: str) -> None:
        """Run gcloud against the same API."""
        self._gcloud.run(*arguments)

    def service(self) -> Any:
        """Return the service as the API answers it."""
        return requests.get(self.url + SERVICE, timeout=10).json()


def seconds(action: Callable[[], None]) -> float:
    """Return how long an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def say(what: str, figure: str, limit: str, ok: bool) -> None:
    """Print one line of the report."""
    print(f"{'ok  ' if ok else 'OVER'}  {what:<58} {figure:<34} {limit}", flush=True)


def against_gcloud(bench: Bench, rounds: int = 7) -> None:
    """Compare status and rollback with gcloud's describe and update-traffic, in turns."""
    if not shutil.which("gcloud"):
        print("left out: gcloud is not installed")
        return
    newest = bench.revisions[-1]
    older = bench.service()["status"]["traffic"]
    other = next(t["revisionName"] for t in older if t["revisionName"] != newest)
    targets = [other, newest]

    def compare(what: str, ours: Callable[[int], None], theirs: Callable[[int], None]) -> None:
        mine, gcloud = [], []
        for number in range(rounds):
            mine.append(seconds(lambda number=number: ours(number)))
            gcloud.append(seconds(lambda number=number: theirs(number)))
        a, b = statistics.median(mine), statistics.median(gcloud)
        say(what, f"{a:.3f} s / {b:.3f} s = {a / b:.2f}", "at most 0.40", a / b <= 0.40)

    compare(
        "ship status / gcloud run services describe",
        lambda _: bench.ship("status", "app"),
        lambda _: bench.gcloud("services", "describe", "app"),
    )
    compare(
        "ship rollback / gcloud run services update-traffic",
        lambda n: bench.ship("rollback", "app", "--to", targets[n % 2], "--no-hold"),
        lambda n: bench.gcloud(
            "services", "update-traffic", "app", f"--to-revisions={targets[(n + 1) % 2]}=100"
        ),
    )


def far_away(bench: Bench, folder: Path) -> None:
    """Compare rollback with gcloud's update-traffic, where every answer takes longer."""
    serving = _serving(bench)
    others = {t["revisionName"] for t in bench.service()["status"]["traffic"]} - {serving}
    bench_latency.measure(bench.url, folder, (serving, others.pop()), bench.ship, seconds, say)


def router(bench: Bench) -> None:
    """Measure requests per second through the router, and the time that it adds to one."""
    if not shutil.which("wrk"):
        print("left out: wrk is not installed")
        return
    url = bench.service()["status"]["url"]
    requests.get(url, timeout=10)
    output = _wrk(url + "/", connections=32, duration=8)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    bad = re.findall(r"(Non-2xx.*|Socket errors.*)", output)
    say("router, sample app, wrk with 32 connections",
        f"{rate:.0f} requests/s, {bad or 'none failed'}", "at least 800, none failed",
        rate >= 800 and not bad)  # fmt: skip
    direct = _instance(bench)
    through, straight = [], []
    for _ in range(3):
        through.append(_median(_wrk(url + "/", connections=1, duration=2)))
        straight.append(_median(_wrk(direct + "/", connections=1, duration=2)))
    added = statistics.median(through) - statistics.median(straight)
    say("router, added at the median of one connection",
        f"{statistics.median(through):.2f} - {statistics.median(straight):.2f} = {added:.2f} ms",
        "at most 3 ms", added <= 3)  # fmt: skip


def _wrk(url: str, connections: int, duration: int) -> str:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--latency", url]
    return subprocess.check_output(command, text=True)


def _median(output: str) -> float:
    """Return wrk's median latency in milliseconds."""
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", output).groups()
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def _instance(bench: Bench) -> str:
    """Return the address of the instance that serves: the port that its own log names."""
    body = {
        "resourceNames": ["projects/shipway-local"],
        "filter": f'resource.labels.revision_name="{_serving(bench)}" AND NOT logName:requests',
        "orderBy": "timestamp desc",
        "pageSize": 100,
    }
    entries = requests.post(bench.url + "/v2/entries:list", json=body, timeout=10).json()["entries"]
    found = re.search(r"Listening at: http://[\d.]+:(\d+)", json.dumps(entries))
    assert found
    return f"http://127.0.0.1:{found[1]}"


def _serving(bench: Bench) -> str:
    traffic = bench.service()["status"]["traffic"]
    return str(next(t["revisionName"] for t in traffic if t.get("percent") == 100))


def delivery(bench: Bench, rounds: int = 7) -> None:
    """Measure from `ship deliver` to 100 % when only code changed, without bake time."""
    took = []
    for _ in range(rounds):
        bench.commit()
        took.append(seconds(lambda: bench.ship("deliver", "--bake", "0s")))
    median = statistics.median(took)
    say("ship deliver, only code changed, no bake", f"{median:.2f} s (worst {max(took):.2f} s)",
        "at most 1 s", median <= 1)  # fmt: skip


_LAYER = 100_000_000  # bytes
_DOCKER_REGISTRY = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def layer_push(bench: Bench, folder: Path, rounds: int = 5) -> None:
    """Compare a layer's push, as clients do it, with Debian's docker-registry, in turns."""
    if not shutil.which("docker-registry"):
        print("left out: docker-registry is not installed")
        return
    layers = [os.urandom(_LAYER) for _ in range(2)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "docker-registry.yml"
    config.write_text(_DOCKER_REGISTRY.format(folder=folder, port=port))
    theirs = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _until_answers(f"http://127.0.0.1:{port}/v2/")
        mine, debian = [], []
        for number in range(rounds):
            layer = layers[number % 2][number:]  # never one that the registry already has
            digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
            mine.append(seconds(lambda: _push(bench.url, layer, digest)))  # noqa: B023 - called now
            debian.append(
                seconds(lambda: _push(f"http://127.0.0.1:{port}", layer, digest))  # noqa: B023 - now
            )
    finally:
        theirs.terminate()
        theirs.wait(timeout=30)
    a, b = statistics.median(mine), statistics.median(debian)
    say("push of a 100 MB layer / Debian's docker-registry",
        f"{a:.3f} s / {b:.3f} s = {a / b:.2f}", "at most 2.00", a / b <= 2)  # fmt: skip


def _until_answers(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _push(registry: str, layer: bytes, digest: str) -> None:
    """Send POST, PATCH with the whole layer, PUT with its digest, as docker and skopeo do."""
    with requests.Session() as session:
        opened = session.post(f"{registry}/v2/bench/layers/app/blobs/uploads/", timeout=60)
        where = urljoin(registry, opened.headers["Location"])
        sent = session.patch(
            where, data=layer, headers={"Content-Type": "application/octet-stream"}, timeout=60
        )
        where = urljoin(registry, sent.headers["Location"])
        done = session.put(where, params={"digest": digest}, timeout=60)
        assert done.status_code == 201, done.text


def main() -> None:
    """Measure everything; with `first-hour`, `several` or `watch`, that part alone."""
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as folder:
        if sys.argv[1:] == ["several"]:
            bench_several.measure(Path(folder), seconds, say)
            return
        if sys.argv[1:] != ["watch"]:
            bench_first_hour.measure(Path(folder) / "first-hour", say)
        if sys.argv[1:] == ["first-hour"]:
            return
        bench = Bench(Path(folder))
        try:
            bench_watch.measure(bench.clone, bench.url, bench.commit, say)
            if sys.argv[1:] == ["watch"]:
                return
            against_gcloud(bench)
            far_away(bench, Path(folder))
            router(bench)
            layer_push(bench, Path(folder))
            delivery(bench)
            bench_image.measure(bench.clone, Path(folder), bench.ship, seconds, say)
            bench_scale.measure(bench.clone, bench.cloud_run, Path(folder), seconds, say)
            bench_several.measure(Path(folder), seconds, say)
        finally:
            bench.cloud_run.stop()


if __name__ == "__main__":
    main()
