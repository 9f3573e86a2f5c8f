"""docker push and pull, and buildx --push, against the local Cloud Run's registry."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import LocalCloudRun
from tests.scripts.docker_help import needs_docker

pytestmark = needs_docker

_KINDS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Repository:
    """A repository of the local registry, read through its HTTP API."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.reference = f"{url.removeprefix('http://')}/{name}"
        self._base = f"{url}/v2/{name}"

    def get(self, path: str) -> requests.Response:
        answer = requests.get(self._base + path, headers={"Accept": ", ".join(_KINDS)}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer

    def checked(self, tag: str) -> tuple[str, dict[str, Any]]:
        """Check that everything that a manifest names is complete; return its digest and it."""
        answer = self.get(f"/manifests/{tag}")
        manifest: dict[str, Any] = answer.json()
        for blob in [manifest["config"], *manifest["layers"]]:
            contents = self.get(f"/blobs/{blob['digest']}").content
            assert f"sha256:{hashlib.sha256(contents).hexdigest()}" == blob["digest"]
            assert len(contents) == blob["size"]
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        assert answer.headers["Docker-Content-Digest"] == digest
        return digest, manifest


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Return a build context with a few megabytes that no other image has."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(6_000_000))
    (folder / "small").write_text("small")
    (folder / "Dockerfile").write_text(
        'FROM scratch\nCOPY large /\nCOPY small /\nENV A=1\nCMD ["/large"]\n'
    )
    return folder


@pytest.fixture
def built() -> Iterator[list[str]]:
    """Yield a list of image references; the engine deletes those images after the test."""
    references: list[str] = []
    yield references
    subprocess.run(["docker", "rmi", "--force", *references], capture_output=True, timeout=60)


def test_push_and_pull(context: Path, built: list[str], local_cloud_run: LocalCloudRun) -> None:
    first = Repository(local_cloud_run.url, "acme/docker/first")
    there = f"{first.reference}:v1"
    built.append(there)
    docker("build", "--quiet", "--tag", there, str(context))
    image = json.loads(docker("image", "inspect", there))[0]
    pushed = docker("push", there)
    digest, manifest = first.checked("v1")
    assert f"v1: digest: {digest}" in pushed
    assert manifest["config"]["digest"] == image["Id"]

    # Layers that the registry has are mounted into another repository: none is sent again.
    second = Repository(local_cloud_run.url, "acme/docker/second")
    built.append(f"{second.reference}:v2")
    docker("tag", there, f"{second.reference}:v2")
    assert f"Mounted from {first.name}" in docker("push", f"{second.reference}:v2")
    assert second.checked("v2") == (digest, manifest)

    docker("rmi", "--force", image["Id"])
    docker("pull", "--quiet", f"{first.reference}@{digest}")
    built.append(f"{first.reference}@{digest}")
    pulled = json.loads(docker("image", "inspect", f"{first.reference}@{digest}"))[0]
    assert pulled["Id"] == image["Id"]
    assert pulled["RootFS"] == image["RootFS"]


def test_buildx_push(
    context: Path, built: list[str], tmp_path: Path, local_cloud_run: LocalCloudRun
) -> None:
    repository = Repository(local_cloud_run.url, "acme/docker/buildx")
    built.append(f"{repository.reference}:v1")
    told = tmp_path / "told.json"
    docker(
        "buildx", "build", "--provenance=false", "--push", "--metadata-file", str(told),
        "--tag", f"{repository.reference}:v1", str(context),
    )  # fmt: skip
    digest, manifest = repository.checked("v1")
    assert json.loads(told.read_text())["containerimage.digest"] == digest
    assert len(manifest["layers"]) == 2
