"""An unmodified `gcloud run` against the local Cloud Run.

gcloud puts the region before the host name of its endpoint (us-central1-localhost), which not every
machine can resolve. So the tests set the local Cloud Run as its HTTP proxy, which resolves no
names. The requests and their hosts stay the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.clients import warm_gcloud
from tests.conftest import ROOT, LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, condition, container, service, tag_url
from tests.scripts.conftest import Project

pytestmark = pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="left out: gcloud is not installed"
)

REGION = "us-central1"
_APIS = ("RUN", "SERVICEUSAGE", "CLOUDRESOURCEMANAGER", "SECRETMANAGER")


class Gcloud:
    """gcloud with its own configuration, in `folder`, for one project and region."""

    def __init__(self, url: str, folder: Path, project: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.environment = {
            **os.environ,
            **warm_gcloud.environment(),
            **{f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}": f"http://localhost:{port}/"
               for api in _APIS},
            "CLOUDSDK_CONFIG": str(folder),
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CORE_PROJECT": project,
            "CLOUDSDK_RUN_REGION": REGION,
            "CLOUDSDK_PROXY_TYPE": "http",
            "CLOUDSDK_PROXY_ADDRESS": host,
            "CLOUDSDK_PROXY_PORT": port,
        }  # fmt: skip

    def type(
        self, *arguments: str, stdin: str = "", cwd: Path | None = None, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["gcloud", *arguments], env=self.environment, input=stdin, capture_output=True,
            text=True, check=False, timeout=timeout, cwd=cwd,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """Run `gcloud run …`, which must succeed; return its output."""
        done = self.type("run", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--format", "json"))


@pytest.fixture
def gcloud(local_cloud_run: LocalCloudRun, tmp_path: Path) -> Gcloud:
    return Gcloud(local_cloud_run.url, tmp_path / "gcloud", f"p-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def there(gcloud: Gcloud, local_cloud_run: LocalCloudRun) -> Any:
    """Return a plain client in gcloud's project, to check the actual state."""
    client = CloudRun(local_cloud_run.url, gcloud.environment["CLOUDSDK_CORE_PROJECT"])
    with client.http:
        yield client


def shares(document: Any) -> dict[str, int]:
    """Return the percentage of each revision in the live traffic."""
    return {
        target["revisionName"]: target["percent"]
        for target in document["status"]["traffic"]
        if target.get("percent")
    }


def tags(document: Any) -> dict[str, str]:
    """Return the revision of each live tag."""
    return {t["tag"]: t["revisionName"] for t in document["status"]["traffic"] if "tag" in t}


def test_deploy_a_new_service_and_then_a_tagged_revision_without_traffic(
    gcloud: Gcloud, there: CloudRun, tmp_path: Path
) -> None:
    image = there.push()
    gcloud.run("deploy", "web", "--image", image, "--allow-unauthenticated")
    [listed] = gcloud.json("services", "list")
    assert listed == there.get("web")
    first = listed["status"]["latestReadyRevisionName"]
    assert requests.get(listed["status"]["url"], timeout=60).json()["revision"] == first
    policy = there.http.get(f"{there.base}/services/web:getIamPolicy").json()
    assert policy["bindings"] == [{"role": "roles/run.invoker", "members": ["allUsers"]}]

    gcloud.run(
        *("deploy", "web", "--image", image, "--no-traffic", "--tag", "next"),
        *("--set-env-vars", "COLOR=blue"),
    )
    described = gcloud.json("services", "describe", "web")
    second = described["status"]["latestReadyRevisionName"]
    assert described == there.get("web")
    assert shares(described) == {first: 100}
    assert tags(described) == {"next": second} != {"next": first}
    url = tag_url(described, "next")
    assert requests.get(url, timeout=60).json()["revision"] == second
    assert url in gcloud.run("services", "describe", "web")

    exported = gcloud.run("services", "describe", "web", "--format", "export")
    (tmp_path / "web.yaml").write_text(exported)
    gcloud.run("services", "replace", str(tmp_path / "web.yaml"))
    again = there.get("web")
    assert again["status"]["latestCreatedRevisionName"] == second
    assert (shares(again), tags(again)) == ({first: 100}, {"next": second})


def test_update_traffic(gcloud: Gcloud, there: CloudRun) -> None:
    image = there.push()
    there.ready(service("web", image, "web-a"))
    there.ready(service("web", image, "web-b", [{"revisionName": "web-a", "percent": 100}], A="1"))

    def update(*arguments: str) -> Any:
        shown = gcloud.json("services", "update-traffic", "web", *arguments)
        document = there.get("web")
        assert {t.get("revisionName") for t in shown} == {
            t["revisionName"] for t in document["status"]["traffic"]
        }
        return document

    assert shares(update("--to-revisions", "web-a=75,web-b=25")) == {"web-a": 75, "web-b": 25}
    assert tags(update("--update-tags", "one=web-a,two=web-b")) == {"one": "web-a", "two": "web-b"}
    assert shares(update("--to-tags", "one=100")) == {"web-a": 100}
    assert tags(update("--remove-tags", "one")) == {"two": "web-b"}
    latest = update("--to-latest")
    assert shares(latest) == {"web-b": 100}
    assert {"latestRevision": True, "percent": 100} in latest["spec"]["traffic"]
    assert tags(update("--clear-tags")) == {}


def test_services_update_sets_the_fields_that_cloud_run_reads(
    gcloud: Gcloud, there: CloudRun
) -> None:
    there.ready(service("web", there.push(), OLD="1"))
    gcloud.run(
        *("services", "update", "web", "--set-env-vars", "A=1,B=two", "--min-instances", "1"),
        *("--max-instances", "3", "--concurrency", "7", "--memory", "1Gi", "--cpu", "2"),
        *("--timeout", "42", "--no-cpu-throttling"),
    )
    updated = there.get("web")
    template = updated["spec"]["template"]
    assert container(updated)["env"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "two"},
    ]
    assert container(updated)["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
    assert template["spec"]["containerConcurrency"] == 7
    assert template["spec"]["timeoutSeconds"] == 42
    annotations = template["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/minScale"] == "1"
    assert annotations["autoscaling.knative.dev/maxScale"] == "3"
    assert annotations["run.googleapis.com/cpu-throttling"].lower() == "false"
    assert requests.get(updated["status"]["url"], timeout=60).json()["env"]["B"] == "two"


def test_secrets(gcloud: Gcloud, there: CloudRun) -> None:
    there.ready(service("web", there.push(), "web-a"))
    made = gcloud.type("secrets", "create", "token", "--data-file", "-", stdin="hunter2")
    assert made.returncode == 0, made.stderr
    read = gcloud.type("secrets", "versions", "access", "latest", "--secret", "token")
    assert (read.stdout, read.returncode) == ("hunter2", 0)
    gcloud.run("services", "update", "web", "--update-secrets", "TOKEN=token:latest")
    updated = there.get("web")
    assert container(updated)["env"] == [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "latest"}}}
    ]
    assert requests.get(updated["status"]["url"], timeout=60).json()["env"]["TOKEN"] == "hunter2"
    failed = gcloud.type("run", "services", "update", "web", "--update-secrets", "TOKEN=none:1")
    assert failed.returncode == 1
    assert "/secrets/none/versions/1 was not found" in failed.stderr


def test_services_replace_accepts_the_samples_manifest(
    gcloud: Gcloud, there: CloudRun, tmp_path: Path
) -> None:
    manifest = yaml.safe_load((ROOT / "tests/pipelines/app/service.yaml").read_text())
    container(manifest)["image"] = there.push()
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(manifest))
    gcloud.run("services", "replace", str(tmp_path / "service.yaml"))
    made = there.get("app")
    assert condition(made)["status"] == "True"
    assert made["metadata"]["generation"] == 1
    gcloud.run("services", "replace", str(tmp_path / "service.yaml"))
    assert there.get("app")["metadata"]["generation"] == 1


def test_policies(gcloud: Gcloud, there: CloudRun) -> None:
    there.ready(service("web", there.push()))
    member = "serviceAccount:caller@acme.iam.gserviceaccount.com"
    gcloud.run(
        *("services", "add-iam-policy-binding", "web"),
        *("--member", member, "--role", "roles/run.invoker"),
    )
    policy = gcloud.json("services", "get-iam-policy", "web")
    assert policy["bindings"] == [{"role": "roles/run.invoker", "members": [member]}]
    assert policy == there.http.get(f"{there.base}/services/web:getIamPolicy").json()


def test_revisions_and_services_are_listed_and_deleted(gcloud: Gcloud, there: CloudRun) -> None:
    image = there.push()
    there.ready(service("web", image, "web-a"))
    there.ready(service("web", image, "web-b", A="1"))
    there.ready(service("other", image))
    listed = gcloud.json("revisions", "list", "--service", "web")
    assert [one["metadata"]["name"] for one in listed] == ["web-b", "web-a"]
    described = gcloud.json("revisions", "describe", "web-a")
    assert described == there.revision("web-a")
    refused = gcloud.type("run", "revisions", "delete", "web-b")
    assert refused.returncode == 1
    assert "cannot be deleted because it is serving traffic" in refused.stderr
    gcloud.run("revisions", "delete", "web-a")
    assert there.http.get(f"{there.base}/revisions/web-a").status_code == 404
    gcloud.run("services", "delete", "web")
    assert there.http.get(f"{there.base}/services/web").status_code == 404


def test_a_failed_deployment_shows_the_reason_and_changes_no_traffic(
    gcloud: Gcloud, there: CloudRun
) -> None:
    image = there.push()
    before = there.ready(service("web", image, "web-a"))
    failed = gcloud.type("run", "deploy", "web", "--image", image, "--command", "nonsense")
    assert failed.returncode == 1
    assert "is not ready and cannot serve traffic. The user-provided container" in failed.stderr
    assert "Logs URL: http://" in failed.stderr
    assert shares(there.get("web")) == shares(before) == {"web-a": 100}


def test_ship_and_gcloud_see_each_others_changes(
    local_cloud_run: LocalCloudRun, tmp_path: Path
) -> None:
    project = Project(tmp_path / "repository", local_cloud_run, f"svc-{uuid.uuid4().hex[:8]}")
    first = project.revision(project.commit())
    project.done("deliver")
    second = project.revision(project.commit())
    project.done("build")
    project.done("deploy")
    gcloud = Gcloud(local_cloud_run.url, tmp_path / "gcloud", "shipway-local")

    def shipped() -> dict[str, int]:
        [region] = project.done("status")["regions"]
        return {one["revision"]: one["percent"] for one in region["revisions"] if one["percent"]}

    described = gcloud.json("services", "describe", project.name)
    assert shares(described) == {first: 100}
    assert tags(described)[f"sha-{second[-7:]}"] == second

    gcloud.run("services", "update-traffic", project.name, "--to-revisions", f"{second}=30")
    assert shipped() == {first: 70, second: 30}

    project.done("promote", "--all")
    assert shares(gcloud.json("services", "describe", project.name)) == {second: 100}

    gcloud.run("services", "update", project.name, "--update-env-vars", "BY=gcloud")
    third = gcloud.json("services", "describe", project.name)["status"]["latestReadyRevisionName"]
    assert third not in (first, second)
    assert shipped() == {second: 100}
    gcloud.run("services", "update-traffic", project.name, "--to-latest")
    assert shipped() == {third: 100}
