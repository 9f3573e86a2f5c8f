"""`./ship init --from-service`: the files that describe a running service."""

from __future__ import annotations

import base64
import shutil
import uuid
from pathlib import Path

import pytest

from scripts.config import pipelines
from scripts.config.formats import GRADUAL
from scripts.config.image_reference import ImageReference
from scripts.init import adopt, tree
from scripts.release import manifest
from scripts.release.declared import differences
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, service
from tests.scripts.conftest import DOCKERFILE, SERVER
from tests.scripts.test_init import Fork


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path / "fork")


SECRET = {"name": "API", "valueFrom": {"secretKeyRef": {"name": "adopted", "key": "latest"}}}


def others_deploy(url: str, name: str) -> CloudRun:
    """Deploy a service as others would: variables, a secret, limits, labels, annotations."""
    client = CloudRun(url, "shipway-local")
    secrets = f"{url}/v1/projects/shipway-local/secrets"
    created = {"replication": {"automatic": {}}}
    client.http.post(secrets, params={"secretId": "adopted"}, json=created)
    version = {"payload": {"data": base64.b64encode(b"hunter2").decode()}}
    assert client.http.post(f"{secrets}/adopted:addVersion", json=version).ok
    document = service(name, client.push(), GREETING="hello")
    document["metadata"] |= {
        "labels": {"team": "shop"},
        "annotations": {
            "run.googleapis.com/invoker-iam-disabled": "true",
            "run.googleapis.com/client-name": "gcloud",
            "run.googleapis.com/description": "Yes: it greets # everybody",
        },
    }
    template = document["spec"]["template"]
    template["metadata"] = {
        "labels": {"client.knative.dev/nonce": "abc", "tier": "web"},
        "annotations": {
            "autoscaling.knative.dev/maxScale": "3",
            "run.googleapis.com/client-version": "500.0.0",
        },
    }
    template["spec"] |= {"containerConcurrency": 20, "serviceAccountName": "web@acme.test.com"}
    container = template["spec"]["containers"][0]
    container["env"].append(SECRET)
    container["resources"] = {"limits": {"cpu": "2", "memory": "256Mi"}}
    client.ready(document)
    return client


def test_a_sidecar_that_is_named_by_tag_is_refused(
    fork: Fork, local_cloud_run: LocalCloudRun
) -> None:
    """I2: nothing is written, and the message names the sidecar."""
    url, name = local_cloud_run.url, f"web-{uuid.uuid4().hex[:8]}"
    client = CloudRun(url, "shipway-local")
    document = service(name, client.push())
    containers = document["spec"]["template"]["spec"]["containers"]
    containers[0]["ports"] = [{"containerPort": 8080}]
    containers.append({"name": "proxy", "image": "gcr.io/acme/proxy:1"})
    client.create(document)
    before = fork.files()
    adopt = ["init", "--from-service", name, "--region", "us-central1",
             "--project", "shipway-local", "--env", "local"]  # fmt: skip
    ended = fork.ship(*adopt, SHIPWAY_ENDPOINT=url)
    assert ended.returncode == 3, ended.stderr
    assert f"sidecar proxy of {name} runs gcr.io/acme/proxy:1, which is named" in ended.stderr
    assert fork.files() == before


def test_a_running_service_is_adopted(fork: Fork, local_cloud_run: LocalCloudRun) -> None:
    """Its first plan shows no change, and a delivery keeps what it had."""
    url, name = local_cloud_run.url, f"web-{uuid.uuid4().hex[:8]}"
    client = others_deploy(url, name)
    before = client.get(name)
    adopt = ["init", "--from-service", name, "--region", "us-central1",
             "--project", "shipway-local", "--env", "local"]  # fmt: skip
    fork.done(*adopt, SHIPWAY_ENDPOINT=url)
    assert pipelines.services(fork.folder) == [name]
    written = fork.yaml(f"{name}/service.yaml")
    assert written["metadata"] == {
        "name": name,
        "labels": {"team": "shop"},
        "annotations": {
            "run.googleapis.com/description": "Yes: it greets # everybody",
            "run.googleapis.com/ingress": "all",
            "shipway/source": "app",
        },
    }
    assert written["spec"].keys() == {"template"}
    template = written["spec"]["template"]["metadata"]
    assert template["labels"] == {"tier": "web"}
    assert template["annotations"] == {"autoscaling.knative.dev/maxScale": "3"}
    assert "serviceAccountName" not in written["spec"]["template"]["spec"]
    planned = fork.ship("plan", SHIPWAY_ENDPOINT=url)
    assert planned.returncode == 0, planned.stdout
    assert "nothing to change" in fork.done(*adopt, SHIPWAY_ENDPOINT=url)
    assert client.get(name) == before

    shutil.rmtree(fork.folder / "app")
    (fork.folder / "app").mkdir()
    (fork.folder / "app/Dockerfile").write_text(DOCKERFILE.replace(" settings.json", ""))
    settings = '{"note": "", "start": "", "health": "ok", "code": 200}'
    server = SERVER.replace('json.load(open("settings.json"))', settings)
    (fork.folder / "app/server.py").write_text(server)
    commit = fork.commit()
    fork.done("deliver", SHIPWAY_ENDPOINT=url)
    after = client.get(name)
    assert after["status"]["traffic"][0]["revisionName"] == f"{name}-{commit[:7]}"
    assert after["metadata"]["labels"]["team"] == "shop"
    was, now = (one["spec"]["template"]["spec"] for one in (before, after))
    for one in (was, now):
        one["containers"][0].pop("image")
    assert now == was
    assert fork.ship("plan", SHIPWAY_ENDPOINT=url).returncode == 0


def test_a_service_is_adopted_as_production(fork: Fork) -> None:
    """The API's answer is made up here; the files that follow from it are real."""
    document = service("web", "europe-west1-docker.pkg.dev/acme-ops/images/web@sha256:00")
    document["spec"]["template"]["spec"]["serviceAccountName"] = (
        "web@acme-live.iam.gserviceaccount.com"
    )
    probe = {"httpGet": {"path": "/ready", "port": 8080}}
    document["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = probe
    running = adopt.Running(
        service=document, env="production", project="acme-live", region="europe-west1",
        open_to_all=True,
    )  # fmt: skip
    before = tree.read(fork.folder)
    after = adopt.adopted(before, running, "app")
    with tree.alone(fork.folder) as scratch:
        tree.stage(fork.folder, scratch, before, after)
        tree.put(fork.folder, scratch, before, after)
    assert [*fork.jobs()] == ["build", "production"]
    made = pipelines.load(fork.folder, "web", "production")
    assert made.environment.registry == "europe-west1-docker.pkg.dev/acme-ops/images"
    assert (made.environment.access, made.environment.confirm) == ("private", True)
    assert made.environment.rollout == GRADUAL
    assert [check.path for check in made.checks] == ["/ready"]
    commit = "0" * 40
    image = ImageReference.parse("x@sha256:00")
    rendered = manifest.render(made, commit=commit, image=image, revision="web-0000000", urls={})
    assert differences(rendered, document) == []
    said = fork.done("init", "--environments", "staging,production",
                     "--project", "staging=acme-before")  # fmt: skip
    assert "+after: staging" in said
    assert [*fork.jobs()] == ["build", "staging", "production"]
    assert pipelines.load(fork.folder, "web", "staging").environment.after is None
    assert "nothing to change" in fork.done("init")


def test_a_minimum_of_each_revision_becomes_one_of_the_service(
    fork: Fork, local_cloud_run: LocalCloudRun
) -> None:
    client, name = CloudRun(local_cloud_run.url, "shipway-local"), f"web-{uuid.uuid4().hex[:8]}"
    document = service(name, client.push())
    document["spec"]["template"]["metadata"] = {
        "annotations": {"autoscaling.knative.dev/minScale": "1"}
    }
    client.ready(document)
    said = fork.done(
        "init", "--from-service", name, "--region", "us-central1", "--project", "shipway-local",
        "--env", "local", SHIPWAY_ENDPOINT=local_cloud_run.url,
    )  # fmt: skip
    assert "each revision with traffic or a tag keeps 1 running" in said
    written = fork.yaml(f"{name}/service.yaml")
    assert written["metadata"]["annotations"]["run.googleapis.com/minScale"] == "1"
    assert "metadata" not in written["spec"]["template"] or "minScale" not in str(written["spec"])


def test_a_plain_variable_that_sounds_like_a_secret_gets_a_warning(
    fork: Fork, local_cloud_run: LocalCloudRun
) -> None:
    client, name = CloudRun(local_cloud_run.url, "shipway-local"), f"web-{uuid.uuid4().hex[:8]}"
    client.ready(service(name, client.push(), DB_PASSWORD="hunter2"))
    ended = fork.ship(
        "init", "--from-service", name, "--region", "us-central1", "--project", "shipway-local",
        "--env", "local", SHIPWAY_ENDPOINT=local_cloud_run.url,
    )  # fmt: skip
    assert "WARNING: DB_PASSWORD is a plain variable" in ended.stdout
    assert "hunter2" not in ended.stdout + ended.stderr  # I9


def test_a_service_that_does_not_exist(fork: Fork, local_cloud_run: LocalCloudRun) -> None:
    before = fork.files()
    ended = fork.ship(
        "init", "--from-service", "missing", "--region", "us-central1", "--project",
        "shipway-local", "--env", "local", SHIPWAY_ENDPOINT=local_cloud_run.url,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "the service missing does not exist in shipway-local, us-central1" in ended.stderr
    assert fork.files() == before
