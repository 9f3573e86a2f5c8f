"""A service with more revisions than a command reads at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests.conftest import LocalCloudRun
from tests.history import write_history
from tests.scripts.conftest import Project


class Aged:
    """Two releases, and after them more revisions than fit a page, as if made later."""

    def __init__(self, project: Project, cloud_run: LocalCloudRun) -> None:
        self.project = project
        self.first = project.revision(project.commit())
        project.done("deliver")
        self.second = project.revision(project.commit())
        project.done("deliver")
        before = self.status()
        cloud_run.stop()
        self.made = write_history(cloud_run.state, project.name, 60, year=2040)
        cloud_run.start()
        self.environment = {ENDPOINT_VARIABLE: cloud_run.url}
        assert self.status() == before

    def status(self) -> Any:
        [region] = self.done("status")["regions"]
        return {key: value for key, value in region.items() if key != "url"}

    def done(self, *arguments: str) -> Any:
        return self.project.done(*arguments, **getattr(self, "environment", {}))


@pytest.fixture
def aged(tmp_path: Path, fresh_cloud_run: LocalCloudRun) -> Aged:
    """Return an aged project, and check that `status` shows the same before and after."""
    return Aged(Project(tmp_path / "repository", fresh_cloud_run, "svc-aged"), fresh_cloud_run)


def test_status_history_and_rollback_find_what_they_need(aged: Aged) -> None:
    shown = aged.status()["revisions"]
    assert [one["revision"] for one in shown] == [aged.second, aged.first]
    assert [one["state"] for one in shown] == ["serving", "rollback target"]
    listed = aged.done("history", "--limit", "100")["revisions"]
    assert {one["revision"] for one in listed} == {aged.first, aged.second, *aged.made}

    done = aged.done("rollback", "--no-hold")["regions"][0]
    assert done["after"] == {aged.first: 100}
    done = aged.done("rollback", "--to", aged.second, "--no-hold")["regions"][0]
    assert done["after"] == {aged.second: 100}


def test_a_revision_that_only_its_name_leads_to(aged: Aged) -> None:
    """The oldest of the sixty is neither among the newest nor known to the service."""
    named = aged.done("rollback", "--to", aged.made[0], "--no-hold", "--dry-run")["regions"][0]
    assert named["after"] == {aged.made[0]: 100}
    unknown = aged.project.ship("rollback", "--to", "svc-aged-none", **aged.environment)
    assert unknown.returncode == 2
    assert "no such ready revision" in unknown.stderr
    other = aged.project.ship("rollback", "--to", "another-service", **aged.environment)
    assert other.returncode == 2
