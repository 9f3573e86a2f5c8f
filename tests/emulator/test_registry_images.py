"""Images read from the registry, and the state of the registry after a kill."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from emulator.registry import images
from emulator.registry.images import ImageNotFound, WrongPlatform
from emulator.registry.models import Registry
from tests.conftest import LocalCloudRun
from tests.emulator.registry_help import INDEX, Client, digest_of, files_below, serving, until

NAME = "acme/services/app"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def client(registry: Registry) -> Iterator[Client]:
    with serving(registry) as url:
        yield Client(url, NAME)


def test_an_image_is_found_by_tag_and_by_digest_under_any_host(
    client: Client, registry: Registry
) -> None:
    digest = client.image("v1")["digest"]
    references = [
        f"europe-docker.pkg.dev/{NAME}:v1",
        f"127.0.0.1:8787/{NAME}@{digest}",
        f"localhost/{NAME}:wrong-tag@{digest}",
    ]
    for reference in references:
        image = images.read(registry, reference, ["linux/amd64"])
        assert image.digest == digest
        assert image.platform == "linux/amd64"
        assert image.config["config"]["Env"] == ["A=1"]
        assert [layer.read_bytes() for layer in image.layers] == [b"a layer for linux/amd64"]


def test_a_reference_without_a_tag_means_latest(client: Client, registry: Registry) -> None:
    digest = client.image("latest")["digest"]
    assert images.read(registry, f"h/{NAME}", ["linux/amd64"]).digest == digest


def push_index(client: Client) -> str:
    attestation = client.image(platform="unknown/unknown")
    children = [attestation, client.image(platform="linux/arm64"), client.image()]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
    return client.manifest(index, "multi")


def test_the_matching_image_of_an_index_is_read(client: Client, registry: Registry) -> None:
    index = push_index(client)
    image = images.read(registry, f"h/{NAME}:multi", {"linux/amd64"})
    assert image.platform == "linux/amd64"
    assert images.read(registry, f"h/{NAME}@{image.digest}", {"linux/amd64"}) == image
    assert image.digest != index, "Cloud Run reports the digest of what it runs"
    assert image.layers[0].read_bytes() == b"a layer for linux/amd64"
    both = images.read(registry, f"h/{NAME}@{index}", {"linux/amd64", "linux/arm64"})
    assert both.platform == "linux/arm64"


def test_an_image_for_another_platform_is_refused(client: Client, registry: Registry) -> None:
    push_index(client)
    with pytest.raises(WrongPlatform) as caught:
        images.read(registry, f"h/{NAME}:multi", ["windows/amd64", "unknown/unknown"])
    assert caught.value.media_type == INDEX
    assert caught.value.offered == ("linux/arm64", "linux/amd64")
    client.image("arm", platform="linux/arm64")
    with pytest.raises(WrongPlatform) as caught:
        images.read(registry, f"h/{NAME}:arm", ["linux/amd64"])
    assert caught.value.media_type.endswith("image.manifest.v1+json")


def test_an_artifact_that_is_not_an_image_is_refused(client: Client, registry: Registry) -> None:
    client.manifest({"mediaType": "application/vnd.acme+json", "layers": []}, "thing")
    with pytest.raises(WrongPlatform):
        images.read(registry, f"h/{NAME}:thing", ["linux/amd64"])


@pytest.mark.parametrize(
    "reference",
    ["app", "h/none/none:v1", f"h/{NAME}:none", f"h/{NAME}@sha256:1", "h/UPPER:v1", "", "h/"],
)
def test_an_unknown_image_is_not_found(client: Client, registry: Registry, reference: str) -> None:
    client.image("v1")
    with pytest.raises(ImageNotFound) as caught:
        images.read(registry, reference, ["linux/amd64"])
    assert caught.value.reference == reference


def test_the_registry_lists_its_contents(client: Client, registry: Registry) -> None:
    digest = client.image("v1")["digest"]
    assert registry.repositories() == [NAME]
    assert registry.digests(NAME) == [digest]
    assert registry.tags(NAME) == ["v1"]


def test_images_survive_a_restart_and_unfinished_uploads_do_not(
    client: Client, registry: Registry, tmp_path: Path
) -> None:
    digest = client.image("v1")["digest"]
    client("POST", "/blobs/uploads/")  # never finished
    again = Registry(tmp_path / "registry")
    assert images.read(again, f"h/{NAME}:v1", ["linux/amd64"]).digest == digest
    assert list((tmp_path / "registry/uploads").iterdir()) == []


WRITER = """
import itertools, json, sys
from hashlib import sha256
from pathlib import Path
from emulator.registry.models import Registry
registry = Registry(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count():
    config = json.dumps({"os": "linux", "architecture": "amd64", "number": number}).encode()
    digest = "sha256:" + sha256(config).hexdigest()
    upload = registry.start_upload("acme/app")
    upload.write(config)
    registry.complete_upload(upload, digest)
    manifest = json.dumps({"config": {"digest": digest}, "layers": []}).encode()
    registry.put_manifest("acme/app", "moving", "application/json", manifest)
"""


def test_a_kill_at_any_moment_leaves_whole_images(tmp_path: Path) -> None:
    """A tag always names a complete image, whenever its writer is killed."""
    root = tmp_path / "registry"
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        until((root / "repositories/acme/app/_tags/moving").exists)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(timeout=60)
        writer.stdout.close()
        registry = Registry(root)
        assert "number" in images.read(registry, "h/acme/app:moving", ["linux/amd64"]).config
        for digest in registry.digests("acme/app"):
            images.read(registry, f"h/acme/app@{digest}", ["linux/amd64"])
        for blob in (root / "blobs/sha256").glob("*/*"):
            assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
            json.loads(blob.read_bytes())


def test_the_local_cloud_run_serves_the_registry_on_its_port(
    fresh_cloud_run: LocalCloudRun,
) -> None:
    """Cloud Logging's path below /v2/ is on the same port, and a crash loses no image."""
    client = Client(fresh_cloud_run.url, NAME)
    digest = client.image("v1")["digest"]
    upload = client("POST", "/blobs/uploads/").headers["Location"]
    client("PATCH", upload, data=b"half of it")
    logged = client("POST", "/v2/entries:list", json={"resourceNames": ["projects/acme"]})
    assert logged.status_code == 200
    fresh_cloud_run.stop(signal.SIGKILL)
    fresh_cloud_run.start()
    client = Client(fresh_cloud_run.url, NAME)
    assert client("HEAD", "/manifests/v1").headers["Docker-Content-Digest"] == digest
    assert client("GET", upload).status_code == 404
    assert client.blob(b"half of it, and the rest")["size"] == 24


def test_a_kill_during_an_upload_leaves_nothing(fresh_cloud_run: LocalCloudRun) -> None:
    """No part of it is visible or kept, and the same blob can be pushed again."""
    contents = os.urandom(20_000_000)
    digest = digest_of(contents)
    root = fresh_cloud_run.state / "registry"
    address = urlsplit(fresh_cloud_run.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        request = f"POST /v2/{NAME}/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(f"{request}Content-Length: {len(contents)}\r\n\r\n".encode())
        connection.sendall(contents[:15_000_000])
        until(lambda: any(f.stat().st_size > 4_000_000 for f in (root / "uploads").iterdir()))
        fresh_cloud_run.stop(signal.SIGKILL)
    assert files_below(root / "blobs") == []
    fresh_cloud_run.start()
    assert files_below(root) == []
    client = Client(fresh_cloud_run.url, NAME)
    assert client("HEAD", f"/blobs/{digest}").status_code == 404
    assert client.blob(contents)["digest"] == digest
    assert client("GET", f"/blobs/{digest}").content == contents
