"""gcloud's two commands that read logs, against the local Cloud Logging."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import warm_gcloud
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, eventually, service

pytestmark = pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="left out: gcloud is not installed"
)


@pytest.fixture
def client(local_cloud_run: LocalCloudRun) -> Iterator[CloudRun]:
    made = CloudRun(local_cloud_run.url)
    with made.http:
        yield made


def gcloud(client: CloudRun, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["gcloud", *arguments, "--quiet"],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            **warm_gcloud.environment(),
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_CORE_PROJECT": "acme",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": f"{client.url}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lines_and_requests_are_read(client: CloudRun, tmp_path: Path) -> None:
    name = "gcloud-logs"
    ready = client.ready(service(name, client.push(), f"{name}-a"))
    url = f"{ready['status']['url']}/log?seen-by-gcloud"
    assert client.http.get(url).status_code == 200
    eventually(lambda: client.logs('textPayload="seen-by-gcloud"').json()["entries"])
    assert client.http.get(f"{ready['status']['url']}/drop").status_code == 503

    lines = gcloud(
        client, tmp_path, "run", "services", "logs", "read", name, "--region=us-central1"
    )
    assert "seen-by-gcloud" in lines
    assert f"GET 200 {url}" in lines

    wanted = (
        f'resource.labels.service_name="{name}" '
        "AND (httpRequest.status>=500 OR textPayload:seen-by) AND NOT severity=DEBUG"
    )
    found = json.loads(gcloud(client, tmp_path, "logging", "read", wanted, "--format=json"))
    assert [e.get("textPayload") or e["httpRequest"]["status"] for e in found] == [
        503,
        "seen-by-gcloud",
    ]
    limited = gcloud(client, tmp_path, "logging", "read", wanted, "--format=json", "--limit=1")
    assert json.loads(limited) == found[:1]
