"""A service of two folders: an image for each, built, checked, deployed and released together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LocalCloudRun
from tests.emulator.test_sidecars import needs_network
from tests.scripts.conftest import DOCKERFILE, Project
from tests.scripts.docker_help import needs_docker
from tests.scripts.test_bad_input import error

PROXY = r"""
import json, os, socket, urllib.request

print("proxy begins", flush=True)
server = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
while True:
    connection, _ = server.accept()
    with connection:
        if not (asked := connection.recv(65536)):  # a probe
            continue
        line = asked.split()[1].decode()
        with urllib.request.urlopen("http://localhost:9090" + line) as answer:
            seen = json.load(answer)
        data = json.dumps({**seen, "proxy": json.load(open("settings.json"))}).encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(data) + data
        )
"""
MANIFEST = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
  annotations:
    shipway/source.proxy: the-proxy
spec:
  template:
    metadata:
      annotations:
        run.googleapis.com/container-dependencies: '{{"proxy":["app"]}}'
    spec:
      containers:
        - name: proxy
          image: proxy
          ports:
            - containerPort: 8080
        - name: app
          image: app
          env:
            - name: OWN_PORT
              value: "9090"
          startupProbe:
            tcpSocket: {{port: 9090}}
            periodSeconds: 1
            failureThreshold: 9
"""


def with_a_proxy(project: Project) -> Project:
    """Make the project's service one of two containers, and commit it."""
    (project.pipeline / "service.yaml").write_text(MANIFEST.format(name=project.name))
    app = project.folder / project.name
    server = (app / "server.py").read_text()
    (app / "server.py").write_text(server.replace('os.environ["PORT"]', 'os.environ["OWN_PORT"]'))
    proxy = project.folder / "the-proxy"
    proxy.mkdir()
    (proxy / "server.py").write_text(PROXY)
    (proxy / "Dockerfile").write_text(DOCKERFILE)
    (proxy / "settings.json").write_text("1")
    project.commit()
    return project


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloudRun]:
    made = LocalCloudRun(tmp_path_factory.mktemp("sidecars") / "state")
    yield made
    made.stop()


def commit(project: Project, number: int) -> str:
    """Commit a change of the proxy's folder alone; return the full SHA."""
    (project.folder / "the-proxy/settings.json").write_text(str(number))
    project.git("commit", "--quiet", "--all", "--message", "the proxy only")
    return project.git("rev-parse", "HEAD")


def images(project: Project) -> dict[str, str]:
    """Return the images that the newest template has: container → repository@digest."""
    containers = project.service()["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["image"].partition("/services/")[2] for one in containers}


@needs_network
def test_both_folders_are_built_and_released_together(cloud: LocalCloudRun, tmp_path: Path) -> None:
    project = with_a_proxy(Project(tmp_path / "repository", cloud, "pair"))
    first = project.git("rev-parse", "HEAD")
    outputs = tmp_path / "outputs"
    done = project.done("deliver")
    assert project.shares() == {project.revision(first): 100}
    assert project.answers()["commit"] == first
    assert project.answers()["proxy"] == 1
    before = images(project)
    assert before["app"].startswith("pair@sha256:")
    assert before["proxy"].startswith("pair/proxy@sha256:")
    assert done["digest"] == before["app"].partition("@")[2]
    after = (project.pipeline / "local.yaml").read_text()
    after = after.replace("project: shipway-local", "project: shipway-next\nafter: local")
    (project.pipeline / "next.yaml").write_text(after)
    project.git("add", "--all")
    # A commit of one folder: both images have a new label, and what did not change is reused.
    second = commit(project, 2)
    built = project.done("build", SHIPWAY_OUTPUTS=str(outputs))
    assert [one["name"] for one in built["images"]] == ["pair", "pair/proxy"]
    digests = (outputs / "digests").read_text()
    assert [one.partition("=")[0] for one in digests.split(",")] == ["pair", "pair/proxy"]
    assert (outputs / "built").read_text() == "pair,pair/proxy"
    subjects = (outputs / "subjects").read_text().splitlines()
    assert [line.partition("/services/")[2] for line in subjects] == ["pair", "pair/proxy"]
    assert project.done("build")["built"] is False
    # The image of the app alone does not say which proxy is meant.
    only = error(project.ship("deliver", "--digest", digests.split(",")[0]), 2)
    assert "--digest does not name pair/proxy: the images of pair are pair, pair/proxy" in only
    swapped = digests.replace("pair/proxy=", "x=").replace("pair=", "pair/proxy=")
    refused = error(project.ship("deliver", "--digest", swapped.replace("x=", "pair=")), 2)
    assert "has no such image" in refused
    planned = project.ship("plan", "--commit", "HEAD")
    assert planned.returncode == 4
    assert "image proxy" in planned.stdout
    project.done("deliver", "--digest", digests)
    assert project.shares() == {project.revision(second): 100}
    assert project.answers()["proxy"] == 2
    assert project.ship("plan", "--commit", "HEAD").returncode == 0
    # The next environment takes the images that have served together here.
    taken = project.done("deliver", "--env", "next", "--digest", digests)
    assert taken["revision"] == project.revision(second)
    rolled = project.done("rollback")
    assert rolled["regions"][0]["after"] == {project.revision(first): 100}
    assert project.answers()["proxy"] == 1
    logs = project.done("logs", "--limit", "1000")["entries"]
    begun = [one for one in logs if one.get("textPayload") == "proxy begins"]
    assert {one["labels"]["container_name"] for one in begun} == {"proxy"}
    assert "[proxy] proxy begins" in project.ship("logs").stdout


@needs_network
def test_a_revision_with_another_sidecar_is_not_released(
    cloud: LocalCloudRun, tmp_path: Path
) -> None:
    """I4: every container runs the image that was built for it."""
    project = with_a_proxy(Project(tmp_path / "repository", cloud, "other"))
    project.done("deliver")
    served = project.shares()
    second = commit(project, 2)
    project.done("build")
    service: Any = project.service()
    template = service["spec"]["template"]
    template["metadata"]["name"] = project.revision(second)
    project.put(service)  # a revision of the commit's name with the images of the one before
    shown = error(project.ship("deliver"), 3)
    assert f"revision {project.revision(second)} exists and runs" in shown
    assert "a commit has one image of each folder" in shown
    assert project.shares() == served


def test_a_sidecar_that_never_starts_is_not_released(cloud: LocalCloudRun, tmp_path: Path) -> None:
    project = with_a_proxy(Project(tmp_path / "repository", cloud, "never"))
    project.commit(start="exit")
    shown = error(project.ship("deliver"), 1)
    assert "Container 'app' did not start." in shown
    assert "no database" in shown


@needs_docker
def test_both_folders_are_built_and_run_by_docker(tmp_path: Path) -> None:
    cloud = LocalCloudRun(tmp_path / "state", docker=True)
    try:
        project = with_a_proxy(Project(tmp_path / "repository", cloud, "boxed"))
        local = project.pipeline / "local.yaml"
        local.write_text(local.read_text().replace("builder: cloud-build", "builder: docker"))
        for number in (1, 2):
            sha = commit(project, number)
            project.done("deliver")
            assert project.shares() == {project.revision(sha): 100}
            seen = project.answers()
            assert (seen["commit"], seen["proxy"]) == (sha, number)
        assert images(project)["proxy"].startswith("boxed/proxy@sha256:")
    finally:
        cloud.stop()


NAMED = "shipway/source.proxy: the-proxy"
MISTAKES = {
    NAMED: {
        "shipway/other: x": "to build it here, add the annotation shipway/source.proxy: FOLDER",
        "shipway/source.proxy: ../x": "'../x' is not a folder inside the repository",
        "shipway/source.proxy: ''": "'' is not a folder inside the repository",
        f"{NAMED}\n    shipway/source.cache: x": "'cache' is taken by the layers of builds",
        f"{NAMED}\n    shipway/source.Proxy: x": "'Proxy' is not a name: lower-case letters",
        f"{NAMED}\n    shipway/source.app: x": "is the annotation shipway/source",
        f"{NAMED}\n    shipway/source.more: x": "no container has the image",
        "shipway/source.proxy: nothing-here": "nothing-here/Dockerfile: no such file in commit",
    },
    "            - containerPort: 8080": {"": "no container has a port, so Cloud Run"},
    "          startupProbe:": {"          livenessProbe:": "others start after app, so it needs"},
    '{"proxy":["app"]}': {
        '{"proxy":["ap"]}': "no container 'ap'",
        '{"proxy":["app"],"app":["proxy"]}': "could start first",
        "app": "'app' is not JSON that names containers",
    },
}


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory, cloud: LocalCloudRun) -> Project:
    return with_a_proxy(Project(tmp_path_factory.mktemp("bad") / "repository", cloud, "mistaken"))


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [(right, wrong, says) for right, all_ in MISTAKES.items() for wrong, says in all_.items()],
)
def test_a_mistake_in_the_manifest_is_named_before_anything_is_built(
    mistaken: Project, right: str, wrong: str, message: str
) -> None:
    file = mistaken.pipeline / "service.yaml"
    text = MANIFEST.format(name=mistaken.name)
    assert right in text
    file.write_text(text.replace(right, wrong))
    mistaken.git("commit", "--quiet", "--allow-empty", "--all", "--message", "a mistake")
    shown = error(mistaken.ship("build"), 2)
    assert message in " ".join(shown.split())
