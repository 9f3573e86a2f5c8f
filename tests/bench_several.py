"""Measure forks with many services, for tests/bench.py."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from emulator.recorder import VARIABLE
from scripts import HOME
from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests.conftest import LocalCloudRun
from tests.history import write_services
from tests.scripts.conftest import Project

FEW, MANY, TOUCHED = 40, 200, 5
DELAY = 0.02  # seconds
REGIONS = {"local": "us-central1", "staging": "europe-west1", "production": "asia-northeast1"}


def measure(
    folder: Path,
    seconds: Callable[[Callable[[], None]], float],
    say: Callable[[str, str, str, bool], None],
    rounds: int = 3,
) -> None:
    """Measure what `deliver --changed` and `status --all` take with many services.

    Args:
        folder: for a fork and the states of local Cloud Runs.
        seconds, say: of tests/bench.py.
        rounds: how often each is measured; the median counts.
    """

    def report(what: str, limit: float, action: Callable[[], object]) -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = statistics.median(seconds(lambda: _ignore(action())) for _ in range(rounds))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / rounds
        say(what, f"{took:.2f} s, {cpu:.2f} s of CPU", f"under {limit:g} s", took < limit)

    few = _Fork(folder / "few", FEW)
    try:
        few.fault(name="slow", seconds=DELAY)
        output = few.ship("deliver", "--changed")
        assert "nothing to deliver" in output, output
        late = f"{FEW} services, answers {DELAY * 1000:.0f} ms late"
        report(f"deliver --changed decides, {late}", 2, lambda: few.ship("deliver", "--changed"))
        few.touch(TOUCHED)
        output = few.ship("plan", "--matrix", "--format", "json")
        assert len(json.loads(output)["services"]) == TOUCHED, output
        report(f"plan --matrix, {late}, {TOUCHED} differ", 2, lambda: few.ship("plan", "--matrix"))
    finally:
        few.cloud.stop()
    many = _Fork(folder / "many", MANY)
    try:
        what = f"status --all, {MANY} services, {len(REGIONS)} environments"
        report(what, 10, lambda: many.status(MANY * len(REGIONS)))
        many.fault(name="status", code=429, every=20)
        report(f"{what}, each 20th 429", 10, lambda: many.status(MANY * len(REGIONS)))
        many.cloud.local("DELETE", "faults/status")
        reads = many.reads("status", "--all") / MANY / len(REGIONS)
        say("its reads for each service and environment", f"{reads:.2f}", "at most 2", reads <= 2)
    finally:
        many.cloud.stop()


def _ignore(_: object) -> None:
    """Take a result that no one needs."""


class _Fork:
    """A fork with many services, each delivered to three environments of one project."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self._state = folder / "state"
        self._record = folder / "recorded.jsonl"
        self.cloud = LocalCloudRun(self._state)
        self._project = project = Project(folder / "fork", self.cloud, "svc")
        self._names = [f"svc-copy-{number:03d}" for number in range(count - 1)]
        local = (project.pipeline / "local.yaml").read_text()
        for env, region in REGIONS.items():
            (project.pipeline / f"{env}.yaml").write_text(
                local.replace("us-central1]", f"{region}]")
            )
        for name in self._names:
            shutil.copytree(project.folder / "svc", project.folder / name)
            to = project.folder / "pipelines" / name
            shutil.copytree(project.pipeline, to)
            manifest = to / "service.yaml"
            manifest.write_text(manifest.read_text().replace("name: svc", f"name: {name}"))
        project.commit()
        project.done("deliver", "svc")
        self.cloud.stop()
        write_services(self._state, "svc", count - 1)
        for kind in ("services", "revisions"):
            [known] = (self._state / "run" / kind).glob("*/us-central1")
            for region in {*REGIONS.values()} - {known.name}:
                (known.parent / region).mkdir()
                for file in known.iterdir():
                    text = file.read_text().replace('"us-central1"', f'"{region}"')
                    (known.parent / region / file.name).write_text(text)
        self.cloud.start()

    def ship(self, *arguments: str) -> str:
        """Run the command line as a whole process, launcher included."""
        return subprocess.run(
            [str(HOME / "ship"), *arguments], cwd=self._project.folder, check=True,
            stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,  # each try that is over the quota
            env={**os.environ, ENDPOINT_VARIABLE: self.cloud.url, "SHIPWAY_VENV": sys.prefix},
        ).stdout  # fmt: skip

    def status(self, cells: int) -> None:
        """Show the grid, in which so many cells have all traffic on one commit."""
        assert self.ship("status", "--all").count(" 100 %") == cells

    def fault(self, **fault: object) -> None:
        """Make the local Cloud Run act up."""
        self.cloud.local("POST", "faults", fault)

    def touch(self, count: int) -> None:
        """Commit a change of some services."""
        for name in self._names[:count]:
            (self._project.folder / name / "more.txt").write_text("")
        self._project.git("add", "--all")
        self._project.git("commit", "--quiet", "--message", "touch")

    def reads(self, *arguments: str) -> int:
        """Return how many requests a command sends."""
        self.cloud.stop()
        os.environ[VARIABLE] = str(self._record)
        self.cloud.start()
        del os.environ[VARIABLE]
        self.ship(*arguments)
        return len(self._record.read_text().splitlines())
