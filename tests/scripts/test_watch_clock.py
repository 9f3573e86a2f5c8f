"""Machines whose clocks are minutes off watch a rollout as if they were right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from tests.conftest import ROOT
from tests.scripts.conftest import Project
from tests.scripts.test_watch import users, watched

SHIFTED = """
import datetime, time

by, right, Right = {by}, time.time, datetime.datetime


class Shifted(Right):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(right() + by, tz)


time.time = lambda: right() + by
datetime.datetime = Shifted
"""


def ship(project: Project, clock: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a Python of its own, with this clock."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts"), *words], cwd=project.folder, timeout=60,
        env={**os.environ, "SHIPWAY_ACTOR": "tester", "PYTHONPATH": str(clock)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def clock(folder: Path, by: int) -> Path:
    """Return the folder of a Python whose clock is so many seconds ahead."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHIFTED.format(by=by))
    return folder


def test_the_clocks_of_the_machines_that_watch_do_not_matter(
    project: Project, tmp_path: Path
) -> None:
    ahead, behind = clock(tmp_path / "ahead", 900), clock(tmp_path / "behind", -900)
    watched(project, unclear="stop", after="4s")
    project.commit()
    project.done("deliver")
    revision = project.revision(project.commit())
    assert ship(project, ahead, "deliver").returncode == 1
    for shown in (project.ship("status"), ship(project, ahead, "status")):
        assert "IN PROGRESS" in shown.stdout
        assert "NOT WATCHED" not in shown.stdout
    watched(project, after="4s")
    with users(project):
        ended = ship(project, behind, "rollout")
    assert ended.returncode == 0, ended.stderr
    assert f"{revision} was no worse after it got all traffic" in ended.stderr
    for event in project.done("history", "--changes")["changes"]:
        assert abs(datetime.fromisoformat(event["at"]).timestamp() - time.time()) < 300, event
