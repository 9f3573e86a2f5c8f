"""Deliver real releases, good and bad, under load (`nox -s simulate -- --real N`)."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import requests

from tests.conftest import LocalCloudRun
from tests.scripts.conftest import Project
from tests.users import asking

_BASE = 0.01  # stable's share of errors
KINDS = {"as stable": _BASE, "at the tolerance": _BASE + 0.005, "2x": 2 * _BASE,
         "10 %": 0.1, "all": 1.0}  # fmt: skip
LATE = "30 %, once it has all traffic"
_LATE = 0.3
_SERVICES = 7  # at once; not one for each kind
_USERS = 4  # of each
_WATCH = """rollout:
  steps: [50, 100]
  bake: 4s
  watch:
    {delay: 1s, warm-up: 0s, at-least: 50, unclear: go-on, after: 5s, patience: 30s, latency: null}
"""
_FAILS = """
import random


def respond(path):
    if path == "/health":
        return health()
    if path == "/break":
        settings["share"] = settings["later"]
    return (500 if random.random() < settings["share"] else 200), body()
"""


class Ended(NamedTuple):
    """How one release ended."""

    kind: str
    caught: bool
    asked: int
    """Requests of users while it was delivered."""
    failed: int
    """Those that failed."""
    problem: str


def _releases(folder: Path, cloud_run: LocalCloudRun, name: str, kinds: Sequence[str],
              ended: list[Ended]) -> None:  # fmt: skip
    """Deliver one service's releases, one after the other, each against the same stable."""
    project = Project(folder / name, cloud_run, name)
    file = project.pipeline / "local.yaml"
    file.write_text(file.read_text().partition("rollout:")[0] + _WATCH)
    project.serve_with(_FAILS)
    project.commit(share=_BASE, later=_LATE)
    project.done("deliver")
    url = project.service()["status"]["url"]
    for kind in kinds:
        revision = project.revision(project.commit(share=KINDS.get(kind, _BASE)))
        with asking(url, _USERS, 0.005) as answers, ThreadPoolExecutor(1) as other:
            delivery = other.submit(project.ship, "deliver")
            if kind == LATE:
                while not delivery.done() and project.shares() != {revision: 100}:
                    time.sleep(0.2)
                requests.get(f"{url}/break", timeout=10)
            said = delivery.result()
        caught = "worse than stable" in said.stderr
        live = project.shares()
        expected = {revision: 100} if not caught else {}
        problem = ""
        if said.returncode != int(caught) or (live != expected and revision in live):
            problem = f"exit {said.returncode}, {live}: {said.stderr[-300:]}"
        total = sum(answers.values())
        ended.append(Ended(kind, caught, total, answers[True], problem))
        if caught:
            project.ship("resume")  # there is a hold if it was caught at 100 %
        else:  # the next one is compared with the same stable
            project.commit(share=_BASE)
            project.ship("deliver", "--bake", "0s")


def run(number: int) -> tuple[list[str], int]:
    """Deliver so many releases; return the lines of the table, and the number of problems."""
    every = [*KINDS, LATE]
    kinds = [every[n % len(every)] for n in range(number)]
    ended: list[Ended] = []
    with tempfile.TemporaryDirectory(prefix="shipway-real-") as temporary:
        folder = Path(temporary)
        cloud_run = LocalCloudRun(folder / "state")
        try:
            threads = [
                threading.Thread(
                    target=_releases,
                    args=(folder, cloud_run, f"app-{n}", kinds[n::_SERVICES], ended),
                )
                for n in range(min(_SERVICES, number))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            cloud_run.stop()
    problems = [one for one in ended if one.problem]
    for one in problems:
        print(f"{one.kind}: {one.problem}", file=sys.stderr)
    lines = [
        f"{len(ended)} releases, {_SERVICES} services at once; stable fails {_BASE:.0%} of its"
        " answers.",
        "",
        "| Release | Failing answers | Releases | Rolled back | Requests of users | Failed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, share in {**KINDS, LATE: _LATE}.items():
        own = [one for one in ended if one.kind == kind]
        lines.append(
            f"| {kind} | {100 * share:g} % | {len(own)} | {sum(one.caught for one in own)}"
            f" | {sum(one.asked for one in own):,} | {sum(one.failed for one in own):,} |"
        )
    return lines, len(problems) + number - len(ended)
