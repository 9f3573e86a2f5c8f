"""gcloud builds from source against the local Cloud Build, Cloud Storage and Cloud Run."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest
import requests

from tests.clients.test_gcloud import Gcloud
from tests.conftest import LocalCloudRun
from tests.emulator.registry_help import until

pytestmark = pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="left out: gcloud is not installed"
)
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from source")
http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
DOCKERFILE = 'FROM python:3.13-slim\nWORKDIR /srv\nCOPY main.py .\nCMD ["python", "main.py"]\n'


@pytest.fixture
def gcloud(local_cloud_run: LocalCloudRun, tmp_path: Path) -> Gcloud:
    made = Gcloud(local_cloud_run.url, tmp_path / "gcloud", f"p-{uuid.uuid4().hex[:8]}")
    run = made.environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"]
    for api in ("ARTIFACTREGISTRY", "CLOUDBUILD", "IAM", "STORAGE"):
        made.environment[f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}"] = run
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "main.py").write_text(SERVER)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


def test_run_deploy_from_source(gcloud: Gcloud, source: Path) -> None:
    gcloud.run("deploy", "web", "--source", str(source), "--allow-unauthenticated")
    url = gcloud.json("services", "describe", "web")["status"]["url"]
    assert requests.get(url, timeout=10).text == "from source"


def test_builds_submit(gcloud: Gcloud, local_cloud_run: LocalCloudRun, source: Path) -> None:
    """The log is at the address that gcloud prints; its own stream reads Google's address only."""
    project = gcloud.environment["CLOUDSDK_CORE_PROJECT"]
    image = f"us-central1-docker.pkg.dev/{project}/services/x:one"
    done = gcloud.type("builds", "submit", str(source), "--tag", image, "--async",
                       "--format", "json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    build = json.loads(done.stdout)

    def ended() -> bool:
        shown = gcloud.type("builds", "describe", build["id"], "--format", "json")
        build.update(json.loads(shown.stdout))
        return build["status"] not in ("QUEUED", "WORKING")

    until(ended, 30)
    assert build["status"] == "SUCCESS"
    [pushed] = build["results"]["images"]
    url = f"{local_cloud_run.url}/v2/{project}/services/x/manifests/one"
    assert requests.head(url, timeout=9).headers["Docker-Content-Digest"] == pushed["digest"]
    log = requests.get(build["logUrl"], headers={"Range": "bytes=3-"}, timeout=9)
    assert log.status_code == 206
    assert log.text.startswith("rting build")
    assert log.text.endswith("DONE\n")


def test_a_source_without_a_dockerfile_is_told_what_to_do(gcloud: Gcloud, source: Path) -> None:
    (source / "Dockerfile").unlink()
    failed = gcloud.type("run", "deploy", "web", "--source", str(source))
    assert failed.returncode == 1
    [build] = json.loads(gcloud.type("builds", "list", "--region", "us-central1",
                                     "--format", "json").stdout)  # fmt: skip
    assert "buildpacks, which the local Cloud Build does not have" in build["statusDetail"]
    assert "write a Dockerfile" in requests.get(build["logUrl"], timeout=9).text
