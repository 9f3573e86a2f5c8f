"""Measure the local Cloud Run with a long history and many services, for tests/bench.py."""

from __future__ import annotations

import functools
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import requests

from scripts import HOME
from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests.conftest import FOR_GCLOUD, LocalCloudRun
from tests.history import write_history, write_services

REVISIONS, SERVICES = 1_000, 200
SERVICE = "/v1/projects/shipway-local/locations/us-central1/services/app"


def measure(
    clone: Path,
    small: LocalCloudRun,
    folder: Path,
    seconds: Callable[[Callable[[], None]], float],
    say: Callable[[str, str, str, bool], None],
    rounds: int = 7,
) -> None:
    """Compare a local Cloud Run with one service to one with many services and revisions.

    Args:
        clone: the repository that both serve.
        small: serves two revisions of `app`, and nothing else.
        folder: for the state of the other one.
        seconds, say: of tests/bench.py.
        rounds: how often each is measured, in turns.
    """
    shutil.copytree(small.state, folder / "large")
    write_history(folder / "large", "app", REVISIONS - 2)
    write_services(folder / "large", "app", SERVICES - 1)
    large = LocalCloudRun(folder / "large", *FOR_GCLOUD)
    try:
        for what, action in _actions(clone, small.url).items():
            times: dict[str, list[float]] = {small.url: [], large.url: []}
            for number in range(rounds):
                for url, taken in times.items():
                    taken.append(seconds(functools.partial(action, url, number)))
            one, many = (statistics.median(taken) for taken in times.values())
            say(
                f"{what}, {REVISIONS} revisions and {SERVICES} services / 2 and 1",
                f"{many:.3f} s / {one:.3f} s = {many / one:.2f}",
                "at most 1.5",
                many / one <= 1.5,
            )
        if memory := _memory(large.process.pid):
            say("memory of the local Cloud Run with them", f"{memory:.0f} MB",
                "under 150 MB", memory < 150)  # fmt: skip
    finally:
        large.stop()


def _actions(clone: Path, small: str) -> dict[str, Callable[[str, int], None]]:
    targets = requests.get(small + SERVICE, timeout=10).json()["status"]["traffic"]
    names = list(dict.fromkeys(target["revisionName"] for target in targets))

    def ship(url: str, *arguments: str) -> None:
        subprocess.run(
            [str(HOME / "ship"), *arguments], cwd=clone, check=True, capture_output=True,
            env={**os.environ, ENDPOINT_VARIABLE: url, "SHIPWAY_VENV": sys.prefix},
        )  # fmt: skip

    def gcloud(url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        subprocess.run(
            ["gcloud", "run", "services", "describe", "app", "--region", "us-central1"],
            check=True, capture_output=True,
            env={
                **os.environ,
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": f"http://localhost:{port}/",
                "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
                "CLOUDSDK_CORE_PROJECT": "shipway-local",
                "CLOUDSDK_PROXY_TYPE": "http",
                "CLOUDSDK_PROXY_ADDRESS": host,
                "CLOUDSDK_PROXY_PORT": port,
            },
        )  # fmt: skip

    def write(url: str, number: int) -> None:
        service = requests.get(url + SERVICE, timeout=10).json()
        del service["metadata"]["resourceVersion"]
        service["spec"]["traffic"] = [{"revisionName": names[number % 2], "percent": 100}]
        requests.put(url + SERVICE, json=service, timeout=10).raise_for_status()

    actions: dict[str, Callable[[str, int], None]] = {
        "ship status": lambda url, _: ship(url, "status", "app"),
        "ship rollback": lambda url, number: ship(
            url, "rollback", "app", "--to", names[number % 2], "--no-hold"
        ),
        "a traffic write to the API": write,
    }
    if shutil.which("gcloud"):
        actions["gcloud run services describe"] = lambda url, _: gcloud(url)
    return actions


def _memory(pid: int) -> float | None:
    """Return the megabytes of a process in memory, where the system reports them as Linux does."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else None
