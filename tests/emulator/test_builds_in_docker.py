"""Builds whose Dockerfile cannot be packed: Docker builds, pushes and serves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, service
from tests.emulator.test_builds import Place
from tests.emulator.test_docker_runtime import BASE, forget
from tests.identity_help import Owner
from tests.scripts.docker_help import needs_docker

pytestmark = [needs_docker, pytest.mark.xdist_group("docker-runtime")]
# A shell command as the build's user is nothing that packing knows.
DOCKERFILE = f"""\
FROM {BASE}
WORKDIR /srv
COPY main.py .
RUN head -c 4 /etc/os-release > os.txt
CMD ["python", "-m", "http.server", "8080"]
"""


def test_what_cannot_be_packed_is_built_pushed_and_served(tmp_path: Path) -> None:
    cloud_run = LocalCloudRun(tmp_path / "state", "--iam", "enforce", docker=True)
    owner = Owner(cloud_run)
    pulled: list[str] = []
    try:
        place = Place(cloud_run.url, owner.http)
        build = place.build(DOCKERFILE)
        assert build["status"] == "SUCCESS", place.log(build)
        assert "Docker builds this image, because of" in place.log(build)
        [pushed] = build["results"]["images"]
        host = cloud_run.url.removeprefix("http://")
        pulled.append(f"{host}/{place.project}/services/x@{pushed['digest']}")
        client = CloudRun(cloud_run.url, place.project)
        client.http = owner.http
        image = f"{place.image.rpartition(':')[0]}@{pushed['digest']}"
        url = client.ready(service("app", image, "app-1"))["status"]["url"]
        name = f"projects/{place.project}/locations/us-central1/services/app"
        owner.grant(name, "roles/run.invoker", "allUsers")
        assert requests.get(f"{url}/os.txt", timeout=60).text == "PRET"
    finally:
        owner.http.close()
        cloud_run.stop()
        forget(*pulled)
