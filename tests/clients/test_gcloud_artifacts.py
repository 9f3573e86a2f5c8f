"""gcloud's commands for images against the local Artifact Registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients import warm_gcloud
from tests.conftest import LocalCloudRun
from tests.emulator.registry_help import Client

pytestmark = pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="left out: gcloud is not installed"
)


def gcloud(url: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["gcloud", "artifacts", *arguments, "--project=acme", "--quiet"],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            **warm_gcloud.environment(),
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY": f"{url}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_images_are_listed_and_deleted(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    client = Client(local_cloud_run.url, "acme/gcloud-images/app")
    digest = client.image("v1")["digest"]
    other = client.image("v2", annotations={"n": "2"})["digest"]
    repository = "us-central1-docker.pkg.dev/acme/gcloud-images"
    listed = json.loads(
        gcloud(
            client.host,
            tmp_path,
            *("docker", "images", "list", repository, "--include-tags", "--format=json"),
        )
    )
    assert {one["version"] for one in listed} == {digest, other}
    versions = json.loads(
        gcloud(
            client.host,
            tmp_path,
            *("versions", "list", "--package=app", "--repository=gcloud-images"),
            *("--location=us-central1", "--format=json"),
        )
    )
    assert {one["name"].rpartition("/")[2] for one in versions} == {digest, other}
    gcloud(
        client.host,
        tmp_path,
        *("versions", "delete", digest, "--package=app", "--repository=gcloud-images"),
        *("--location=us-central1", "--delete-tags"),
    )
    assert client("HEAD", f"/manifests/{digest}").status_code == 404
    assert client("HEAD", "/manifests/v1").status_code == 404
    assert client("HEAD", "/manifests/v2").status_code == 200
