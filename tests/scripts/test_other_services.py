"""Any service that listens on $PORT is delivered: not only Flask."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, needs_node
from tests.scripts.conftest import Project

SERVICES = ROOT / "tests" / "services"


def of(project: Project, source: Path) -> Project:
    """Return the project, which delivers the files of `source` from the next commit on."""
    (project.folder / project.name / "server.py").unlink()
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, project.folder / project.name, dirs_exist_ok=True, ignore=ignore)
    return project


def delivered(project: Project, *arguments: str) -> None:
    """Deliver two commits: the first one starts the service, the second one is rolled out."""
    for _ in range(2):
        commit = project.commit()
        done = project.done("deliver", *arguments)
        assert done["revision"] == project.revision(commit)
        assert project.shares() == {project.revision(commit): 100}
        seen = project.answers()
        assert (seen["commit"], seen["revision"]) == (commit, project.revision(commit))
    assert len(project.revisions()) == 2


@pytest.mark.usefixtures("pypi")
def test_a_service_of_fastapi_and_uvicorn(project: Project) -> None:
    delivered(of(project, SERVICES / "fastapi"))


@needs_node
def test_a_service_of_plain_node(project: Project) -> None:
    delivered(of(project, SERVICES / "node"))
