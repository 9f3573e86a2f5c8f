"""A watch on a machine whose clock is minutes off decides as one whose clock is right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

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


def ship(project: Project, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a Python of its own, whose clock is as `folder` says."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts"), *words], cwd=project.folder, timeout=60,
        env={**os.environ, "SHIPWAY_ACTOR": "tester", "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("by", [-900, 900], ids=["behind", "ahead"])
def test_the_clock_of_this_machine_does_not_matter(
    project: Project, tmp_path: Path, by: int
) -> None:
    watched(project, unclear="stop", after="2s")
    project.commit()
    project.done("deliver")
    (tmp_path / "sitecustomize.py").write_text(SHIFTED.format(by=by))
    revision = project.revision(project.commit())
    assert ship(project, tmp_path, "deliver").returncode == 1
    for shown in (project.ship("status"), ship(project, tmp_path, "status")):
        assert "IN PROGRESS" in shown.stdout
        assert "NOT WATCHED" not in shown.stdout
    watched(project, after="4s")
    with users(project):
        ended = ship(project, tmp_path, "rollout")
    assert ended.returncode == 0, ended.stderr
    assert f"{revision} was no worse after it got all traffic" in ended.stderr
    for event in project.done("history", "--changes")["changes"]:
        assert abs(datetime.fromisoformat(event["at"]).timestamp() - time.time()) < 300, event
