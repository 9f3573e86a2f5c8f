"""gcloud builds from source against the local Cloud Build, Cloud Storage and Cloud Run."""

from __future__ import annotations

import http.client
import json
import shutil
import uuid
from pathlib import Path

import pytest
import requests

from tests.clients.test_gcloud import Gcloud
from tests.conftest import LocalCloudRun

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


def that_builds(cloud_run: LocalCloudRun, folder: Path) -> Gcloud:
    """Return gcloud with what it needs to build, for a project of its own."""
    made = Gcloud(cloud_run.url, folder / "gcloud", f"p-{uuid.uuid4().hex[:8]}")
    run = made.environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"]
    for api in ("ARTIFACTREGISTRY", "CLOUDBUILD", "IAM", "LOGGING", "STORAGE"):
        made.environment[f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}"] = run
    made.environment["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"] = str(
        cloud_run.state / "google-certificate.pem"
    )
    return made


@pytest.fixture
def gcloud(local_cloud_run: LocalCloudRun, tmp_path: Path) -> Gcloud:
    return that_builds(local_cloud_run, tmp_path)


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
    assert requests.get(url, timeout=60).text == "from source"


def test_builds_submit(gcloud: Gcloud, local_cloud_run: LocalCloudRun, source: Path) -> None:
    """The log streams, although gcloud reads it at https://storage.googleapis.com."""
    project = gcloud.environment["CLOUDSDK_CORE_PROJECT"]
    image = f"us-central1-docker.pkg.dev/{project}/services/x:one"
    done = gcloud.type("builds", "submit", str(source), "--tag", image, "--format", "json")
    assert done.returncode == 0, done.stderr
    build = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert build["status"] == "SUCCESS"
    [pushed] = build["results"]["images"]
    url = f"{local_cloud_run.url}/v2/{project}/services/x/manifests/one"
    assert requests.head(url, timeout=60).headers["Docker-Content-Digest"] == pushed["digest"]
    log = requests.get(build["logUrl"], timeout=60).text
    assert log.endswith("DONE\n")
    streamed = done.stdout + done.stderr
    assert all(line in streamed for line in log.splitlines())


def test_the_proxy_connects_to_cloud_storage_only(
    gcloud: Gcloud, local_cloud_run: LocalCloudRun
) -> None:
    proxy = {"https": local_cloud_run.url}
    trusted = gcloud.environment["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"]
    for host in ("www.googleapis.com", "localhost", "storage.googleapis.com:22", "169.254.169.254"):
        with pytest.raises(requests.exceptions.ProxyError, match="403"):
            requests.get(f"https://{host}/x", proxies=proxy, verify=trusted, timeout=60)
    by_page = http.client.HTTPConnection(local_cloud_run.url.removeprefix("http://"), timeout=60)
    by_page.request("CONNECT", "storage.googleapis.com:443", headers={"Origin": "http://a.example"})
    assert by_page.getresponse().status == 403
    by_page.close()


def test_an_object_behind_the_tunnel(gcloud: Gcloud, local_cloud_run: LocalCloudRun) -> None:
    bucket = f"{gcloud.environment['CLOUDSDK_CORE_PROJECT']}_cloudbuild"
    url = f"{local_cloud_run.url}/upload/storage/v1/b/{bucket}/o?name=a/b.txt"
    requests.post(url, data=b"0123456789", timeout=60).raise_for_status()
    with requests.Session() as session:
        session.trust_env = False
        session.proxies = {"https": local_cloud_run.url}
        session.verify = gcloud.environment["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"]
        there = f"https://storage.googleapis.com/{bucket}/a/b.txt"

        def read(**headers: str) -> tuple[int, str]:
            answer = session.get(there, headers=headers, timeout=60)
            return answer.status_code, answer.text

        assert read() == (200, "0123456789")
        assert read(Range="bytes=7-") == (206, "789")
        assert read(Range="bytes=10-")[0] == 416
        assert read(Origin="https://storage.googleapis.com")[0] == 403
        assert read(Host="localhost")[0] == 421
        missing = session.get(f"{there}.gone", timeout=60)
        assert (missing.status_code, "<Code>NoSuchKey</Code>" in missing.text) == (404, True)


def test_a_source_without_a_dockerfile_is_told_what_to_do(gcloud: Gcloud, source: Path) -> None:
    (source / "Dockerfile").unlink()
    failed = gcloud.type("run", "deploy", "web", "--source", str(source))
    assert failed.returncode == 1
    [build] = json.loads(gcloud.type("builds", "list", "--region", "us-central1",
                                     "--format", "json").stdout)  # fmt: skip
    assert "buildpacks, which the local Cloud Build does not have" in build["statusDetail"]
    assert "write a Dockerfile" in requests.get(build["logUrl"], timeout=60).text
