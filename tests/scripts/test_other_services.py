"""Any service that listens on $PORT is delivered: not only Flask, and with Docker as well."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, LocalCloudRun, needs_sample
from tests.scripts.conftest import Project
from tests.scripts.docker_help import needs_docker

SERVICES = ROOT / "tests" / "services"
NODE = shutil.which("node", path="/usr/bin:/bin")  # where the process runtime looks


def of(project: Project, source: Path) -> Project:
    """The project, delivering the files of `source` from the next commit on."""
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


@pytest.mark.skipif(NODE is None, reason="left out: node is not installed in /usr/bin or /bin")
def test_a_service_of_plain_node(project: Project) -> None:
    delivered(of(project, SERVICES / "node"))


@pytest.fixture
def docker_project(tmp_path: Path) -> Iterator[Project]:
    """A project whose local Cloud Run runs containers."""
    cloud_run = LocalCloudRun(tmp_path / "state", "--runtime", "docker")
    yield Project(tmp_path / "repository", cloud_run, f"svc-{uuid.uuid4().hex[:8]}")
    cloud_run.stop()
    host = cloud_run.url.removeprefix("http://")
    listed = ["docker", "image", "ls", "--quiet", "--no-trunc", f"{host}/*/*/*"]
    found = subprocess.check_output(listed, text=True, timeout=60).split()
    subprocess.run(
        ["docker", "image", "rm", "--force", *set(found)], capture_output=True, timeout=60
    )


@needs_docker
@needs_sample
@pytest.mark.usefixtures("pypi")
@pytest.mark.xdist_group("docker-runtime")
def test_the_samples_own_dockerfile_in_containers(docker_project: Project) -> None:
    project = of(docker_project, ROOT / "app")
    delivered(project, "--builder", "docker")
    label = f"label=dev.shipway.state={project.cloud_run.state.resolve()}"
    running = subprocess.check_output(
        ["docker", "ps", "--quiet", "--filter", label], text=True, timeout=60
    ).split()
    shown = json.loads(subprocess.check_output(["docker", "inspect", *running], timeout=60))
    images = {item["Config"]["Image"] for item in shown}
    digest = project.service()["spec"]["template"]["spec"]["containers"][0]["image"]
    assert digest in images
    assert {item["Config"]["User"] for item in shown} == {"65532:65532"}
