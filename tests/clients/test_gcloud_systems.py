"""The commands of the systems' own documents, by an unmodified gcloud.

They are typed in a copy of the system's folder. Only the project differs from the documents.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.test_gcloud import Gcloud, shares
from tests.clients.test_gcloud_builds import that_builds
from tests.conftest import FOR_GCLOUD, ROOT, LocalCloudRun, needs_node
from tests.emulator.cloud_run_help import CloudRun, container, eventually, service
from tests.emulator.test_sandbox import needs_network
from tests.systems import SECRET, SYSTEMS, put_key

pytestmark = [
    pytest.mark.skipif(shutil.which("gcloud") is None, reason="left out: gcloud is not installed"),
    pytest.mark.usefixtures("pypi"),
]
PUBLIC = "--allow-unauthenticated"


class Documents:
    """gcloud in a copy of the systems' folders, and a plain client of the same project."""

    def __init__(self, cloud_run: LocalCloudRun, folder: Path) -> None:
        self.gcloud: Gcloud = that_builds(cloud_run, folder)
        self.project = self.gcloud.environment["CLOUDSDK_CORE_PROJECT"]
        self.there = CloudRun(cloud_run.url, self.project)
        self.folder = folder / "systems"
        shutil.copytree(ROOT / "tests/services", self.folder)

    def type(self, system: str, line: str, *more: str) -> str:
        """Type `gcloud LINE` in the folder of a system, which must succeed; return its output."""
        words = (*line.split(), *more)
        done = self.gcloud.type(*words, cwd=self.folder / system, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def url(self, system: str) -> str:
        return str(self.there.get(system)["status"]["url"])

    def works(self, system: str) -> None:
        """Check the system, once the gcloud command has made it ready."""
        SYSTEMS[system].works(self.url(system))


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Documents]:
    """Yield a local Cloud Run whose instances may have networks of their own."""
    folder = tmp_path_factory.mktemp("documents")
    cloud_run = LocalCloudRun(folder / "state", *FOR_GCLOUD)
    made = Documents(cloud_run, folder)
    with made.there.http:
        yield made
    cloud_run.stop()


@needs_network
def test_chat_is_deployed_from_source_with_one_instance(documents: Documents) -> None:
    documents.type("chat", f"run deploy chat --source . {PUBLIC} --max-instances 1")
    documents.works("chat")


def test_todo_gets_a_minimum_of_instances_and_traffic_by_percentage(documents: Documents) -> None:
    documents.type("todo", f"run deploy todo --source . {PUBLIC}")
    first = documents.there.get("todo")["status"]["latestReadyRevisionName"]
    documents.type("todo", "run services update todo --min-instances 1")
    second = documents.there.get("todo")["status"]["latestReadyRevisionName"]
    documents.type(
        "todo", f"run services update-traffic todo --to-revisions {first}=90,{second}=10"
    )
    assert shares(documents.there.get("todo")) == {first: 90, second: 10}
    documents.works("todo")


def test_gemini_answers_after_a_deployment_from_source(documents: Documents) -> None:
    documents.type("gemini", f"run deploy gemini --source . {PUBLIC}")
    documents.works("gemini")


def test_hello_is_built_and_its_log_says_why_it_does_not_answer(documents: Documents) -> None:
    """Flask 2.0.3 with Werkzeug 3, as its author wrote it."""
    image = f"us-central1-docker.pkg.dev/{documents.project}/services/hello"
    documents.type("hello", f"builds submit --tag {image}")
    documents.there.create(service("hello", f"{image}:latest"))
    documents.there.settled("hello")
    reason = "cannot import name 'url_quote'"
    of_hello = "resource.labels.service_name=hello"
    assert eventually(lambda: reason in documents.there.logs(of_hello).text)
    read = "logging read --limit 200 --format json"
    lines = documents.type("hello", read, f"resource.type=cloud_run_revision AND {of_hello}")
    assert any(reason in line.get("textPayload", "") for line in json.loads(lines))


@needs_network
def test_api_server_is_deployed_with_its_size_and_its_variables(documents: Documents) -> None:
    documents.type(
        "api-server",
        f"run deploy api-server --source . {PUBLIC} --cpu 2 --memory 2Gi --timeout 300"
        " --max-instances 10",
        "--set-env-vars=GREETING=Good day",
    )
    made = documents.there.get("api-server")
    spec = made["spec"]["template"]["spec"]
    annotations = made["spec"]["template"]["metadata"]["annotations"]
    assert container(made)["resources"]["limits"] == {"cpu": "2", "memory": "2Gi"}
    assert spec["timeoutSeconds"] == 300
    assert annotations["autoscaling.knative.dev/maxScale"] == "10"
    documents.works("api-server")


@needs_network
@needs_node
def test_api_calls_ai_with_an_id_token(documents: Documents) -> None:
    documents.type("ai", "run deploy ai --source . --port 8081 --no-allow-unauthenticated")
    url = documents.url("ai")
    documents.type("api", f"run deploy api --source . {PUBLIC} --set-env-vars AI_URL={url}")
    documents.works("ai")
    documents.works("api")


@needs_network
def test_secret_key_gets_its_key_from_secret_manager(documents: Documents) -> None:
    put_key(documents.there.url, documents.project)
    line = f"run deploy secret-key --source . {PUBLIC} --set-secrets API_KEY={SECRET}:latest"
    documents.type("secret-key", line)
    [variable] = container(documents.there.get("secret-key"))["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": SECRET, "key": "latest"}
    documents.works("secret-key")
