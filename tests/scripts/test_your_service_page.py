"""docs/your-service.md: each service is delivered as it stands there, file by file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import requests
import yaml

from scripts.config import pipelines
from scripts.service import accepted
from tests.conftest import ROOT, needs_node
from tests.scripts.conftest import Project

PAGE = (ROOT / "docs" / "your-service.md").read_text()
MANIFEST = (ROOT / "tests/pipelines/app/service.yaml").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def fork_of(project: Project, title: str) -> Project:
    """Replace the project's service with the files of a section, in a fork's own layout."""
    files = re.findall(r"^`(\S+)`\n\n```\w*\n(.*?)^```$", section(title), re.DOTALL | re.MULTILINE)
    assert {"app/Dockerfile", "pipelines/app/smoke.yaml"} < {path for path, _ in files}
    (project.folder / project.name / "server.py").unlink()
    for path, text in files:
        place = re.sub(r"(^|/)app/", rf"\g<1>{project.name}/", path)
        (project.folder / place).write_text(text)
    manifest = MANIFEST.replace("  name: app\nspec:", f"  name: {project.name}\nspec:")
    (project.pipeline / "service.yaml").write_text(manifest)
    return project


def test_the_manifest_of_several_containers_is_one_that_cloud_run_takes(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", section("Several containers"), re.S | re.M)
    shutil.copytree(ROOT / "tests/pipelines/app", tmp_path / "pipelines/app")
    (tmp_path / "pipelines/app/service.yaml").write_text(text)
    pipeline = pipelines.load(tmp_path, "app", "local")
    assert pipeline.sources == {"app": tmp_path / "app", "proxy": tmp_path / "proxy"}
    assert accepted.problems(pipeline) == []


def delivered(project: Project, title: str) -> None:
    fork = fork_of(project, title)
    commit = fork.commit()
    done = fork.done("deliver")
    assert fork.shares() == {fork.revision(commit): 100}
    assert f"Hello from {title}" in requests.get(done["url"], timeout=10).text
    if "COMMIT_SHA" in section(title):
        assert fork.answers() == {"commit": commit}


@pytest.mark.usefixtures("pypi")
@pytest.mark.parametrize("title", ["Flask", "FastAPI"])
def test_a_service_in_python_is_delivered_as_it_stands(project: Project, title: str) -> None:
    delivered(project, title)


@needs_node
def test_a_service_in_node_is_delivered_as_it_stands(project: Project) -> None:
    delivered(project, "Node")


@needs_node
def test_a_secret_is_named_as_on_the_page(project: Project) -> None:
    fork = fork_of(project, "Node")
    manifest = yaml.safe_load((fork.pipeline / "service.yaml").read_text())
    example = re.search(r"```yaml\n(.*?)```", section("Secrets"), re.DOTALL)
    assert example
    named = yaml.safe_load(example[1])
    name, variable = f"key-{fork.name}", named["env"][0]
    variable["valueFrom"]["secretKeyRef"]["name"] = name  # of this test alone
    manifest["spec"]["template"]["spec"]["containers"][0] |= named
    (fork.pipeline / "service.yaml").write_text(yaml.safe_dump(manifest))
    server = fork.folder / fork.name / "server.js"
    code = server.read_text()
    assert '"Hello from Node\\n"' in code
    server.write_text(code.replace('"Hello from Node\\n"', "process.env.API_KEY"))
    (fork.pipeline / "smoke.yaml").write_text("")
    fork.commit()
    ended = fork.ship("deliver")
    assert ended.returncode == 1
    assert f"{name}/versions/latest was not found" in ended.stderr
    secrets = f"{fork.cloud_run.url}/v1/projects/shipway-local/secrets"
    for path, body in (
        (f"?secretId={name}", {"replication": {"automatic": {}}}),
        (f"/{name}:addVersion", {"payload": {"data": "c2VzYW1l"}}),
    ):
        requests.post(secrets + path, json=body, timeout=10).raise_for_status()
    fork.commit()
    done = fork.done("deliver")
    assert requests.get(done["url"], timeout=10).text == "sesame"


def test_the_dockerfile_lines_for_the_commit_are_those_that_a_failed_check_names() -> None:
    lines = "ARG COMMIT_SHA\nENV COMMIT_SHA=$COMMIT_SHA\n"
    assert lines in section("FastAPI")
    assert lines in (ROOT / "docs" / "smoke-checks.md").read_text()
