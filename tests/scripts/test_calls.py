"""A service that calls another gets its URL, in every region, and is told what is missing."""

from __future__ import annotations

import shutil
import threading
from typing import Any

import pytest
import requests

from scripts.config import pipelines, relations
from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.release import manifest
from tests.relay import Relay
from tests.scripts.conftest import Project


class Pair:
    """A repository with two services: the project's own, which calls the other one."""

    def __init__(self, project: Project) -> None:
        self.api = project
        self.ai = f"{project.name}-ai"
        self.variable = f"{self.ai.upper().replace('-', '_')}_URL"
        shutil.copytree(project.folder / project.name, project.folder / self.ai)
        folder = project.folder / "pipelines" / self.ai
        shutil.copytree(project.pipeline, folder)
        service = folder / "service.yaml"
        service.write_text(service.read_text().replace(project.name, self.ai))
        self.file = project.folder / relations.FILE
        self.file.write_text(f"calls:\n  {project.name}: [{self.ai}]\n")
        project.commit()

    @property
    def ai_path(self) -> str:
        return f"{self.api.service_path.rpartition('/')[0]}/{self.ai}"

    def ai_url(self) -> str:
        return str(requests.get(self.ai_path, timeout=10).json()["status"]["url"])

    def deliver_ai(self) -> None:
        self.api.done("deliver", self.ai)

    def ship(self, *words: str, **env: str) -> Any:
        return self.api.ship(words[0], self.api.name, *words[1:], **env)

    def done(self, *words: str, **env: str) -> Any:
        return self.api.done(words[0], self.api.name, *words[1:], **env)

    def given(self) -> dict[str, str]:
        """Return the variables that the caller's newest template has."""
        [container] = self.api.service()["spec"]["template"]["spec"]["containers"]
        return {one["name"]: one["value"] for one in container.get("env", [])}


@pytest.fixture
def pair(project: Project) -> Pair:
    return Pair(project)


def test_a_callee_comes_first(pair: Pair) -> None:
    """Nothing is written, not even an image, before the callee is delivered."""
    with Relay(pair.api.cloud_run.url) as relay:
        for verb in ("deliver", "deploy", "plan"):
            relayed = {ENDPOINT_VARIABLE: relay.url}
            words = ["--digest", f"sha256:{'0' * 64}"] if verb == "deploy" else []
            ended = pair.ship(verb, *words, **relayed)
            if verb == "plan":
                assert ended.returncode == 4  # the caller is not there either
            if verb == "deliver":
                assert ended.returncode == 2
                assert f"{pair.api.name} calls {pair.ai}, which has not been" in ended.stderr
                assert f"-> deliver it first: ./ship deliver {pair.ai}\n" in ended.stderr
    assert {one.method for one in relay.exchanges} <= {"GET", "HEAD"}
    found = pair.ship("doctor")
    assert f"./ship deliver {pair.ai}" in found.stdout


def test_a_caller_gets_the_url(pair: Pair) -> None:
    pair.deliver_ai()
    url = pair.ai_url()
    dry = pair.ship("deliver", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    pair.done("build")
    dry = pair.ship("deploy", "--dry-run")
    assert f'"value": "{url}"' in dry.stdout
    both, names = threading.Barrier(2), [pair.ai, pair.api.name]

    def meet(method: str, path: str) -> None:
        """Answer the first read of each service when the other one's has come."""
        if method == "GET" and (name := path.rpartition("/")[2]) in names:
            names.remove(name)
            both.wait(timeout=30)

    with Relay(pair.api.cloud_run.url, refuse=meet) as relay:
        pair.done("deliver", **{ENDPOINT_VARIABLE: relay.url})
    reads = [one for one in relay.exchanges if one.path.endswith(f"/services/{pair.ai}")]
    assert len(reads) == 1
    assert not names, "both at once"
    assert pair.given() == {pair.variable: url}
    assert not pair.done("plan")["changes"]
    # The callee is deleted and comes back at another URL: the same commit gets a new revision.
    assert requests.delete(pair.ai_path, timeout=10).ok
    gone = pair.ship("plan")
    assert gone.returncode == 2
    assert f"./ship deliver {pair.ai}" in gone.stderr
    assert pair.ship("status").returncode == 0
    pair.deliver_ai()
    assert pair.ai_url() != url
    differs = pair.ship("plan")
    assert differs.returncode == 4
    assert f"env[{pair.variable}].value" in differs.stdout
    again = pair.done("deliver")
    assert again["revision"] == f"{pair.api.revision(again['commit'])}-2"
    assert pair.api.shares() == {again["revision"]: 100}
    assert pair.given() == {pair.variable: pair.ai_url()}
    assert not pair.done("plan")["changes"]
    assert pair.done("deliver")["revision"] == again["revision"]


def test_a_callee_that_is_not_in_a_region_is_called_elsewhere(pair: Pair) -> None:
    file = pair.api.pipeline / "local.yaml"
    file.write_text(file.read_text().replace("[us-central1]", "[europe-west1, us-central1]"))
    pair.api.commit()
    pair.deliver_ai()
    name = pair.api.name
    ended = pair.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    said = f"note: {pair.ai} is not in europe-west1: {name} there calls {pair.ai} in us-central1"
    assert ended.stderr.count(said) == 1
    assert pair.given() == {pair.variable: pair.ai_url()}
    there = requests.get(pair.api.service_path.replace("us-central1", "europe-west1"), timeout=10)
    [container] = there.json()["spec"]["template"]["spec"]["containers"]
    assert container["env"][0]["value"] == pair.ai_url()


def test_a_sample_that_waits_for_its_first_delivery_is_not_called(pair: Pair) -> None:
    """What bootstrap creates has a URL, but does not answer as the callee does."""
    pair.deliver_ai()
    service = requests.get(pair.ai_path, timeout=10).json()
    service["spec"]["template"]["metadata"].pop("name")
    [container] = service["spec"]["template"]["spec"]["containers"]
    container["image"] = "us-docker.pkg.dev/cloudrun/container/hello"
    assert requests.put(pair.ai_path, json=service, timeout=10).ok
    ended = pair.ship("deliver")
    assert ended.returncode == 2
    assert "has not been delivered to local" in ended.stderr


def test_a_container_of_someone_else_gets_no_url(pair: Pair) -> None:
    files = pipelines.load(pair.api.folder, pair.api.name, "local")
    side = {
        "name": "side",
        "image": f"x/y/z@sha256:{'0' * 64}",
        "env": [{"name": "B", "value": "1"}],
    }
    [main] = files.manifest["spec"]["template"]["spec"]["containers"]
    main["env"] = [{"name": "A", "value": "1"}]
    files.manifest["spec"]["template"]["spec"]["containers"] = [side, main]
    images = {"app": ImageReference.parse("host/project/services/app@sha256:00")}
    urls = {"AI_URL": "https://ai.example.com"}
    made = manifest.render(files, commit="0" * 40, images=images, revision="x-1", urls=urls)
    sidecar, serving = made["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in sidecar["env"]] == ["B"]
    assert [one["name"] for one in serving["env"]] == ["A", "AI_URL"]
    assert manifest.has_urls(made["spec"]["template"], urls)
    assert not manifest.has_urls(made["spec"]["template"], {"AI_URL": "https://other.example.com"})
    assert main["env"] == [{"name": "A", "value": "1"}], "the files stay as they are"
