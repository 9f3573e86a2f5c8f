"""skopeo, a third-party registry client, against the local registry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LocalCloudRun

pytestmark = pytest.mark.skipif(
    shutil.which("skopeo") is None, reason="left out: skopeo is not installed"
)


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_layout(folder: Path) -> dict[str, bytes]:
    """Write an OCI image layout with one image, tagged `v1`; return its blobs by digest."""
    blobs: dict[str, bytes] = {}

    def add(contents: bytes, media_type: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(contents).hexdigest()}"
        blobs[digest] = contents
        return {"mediaType": media_type, "digest": digest, "size": len(contents)}

    kind = "application/vnd.oci.image"
    large, small = os.urandom(5_000_000), b"small"
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in (large, small)]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["A=1"], "Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": add(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [add(layer, f"{kind}.layer.v1.tar") for layer in (large, small)],
    }
    described = add(json.dumps(manifest, indent=3).encode(), f"{kind}.manifest.v1+json")
    described["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (folder / "blobs/sha256").mkdir(parents=True)
    for digest, contents in blobs.items():
        (folder / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(contents)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "manifests": [described]}
    (folder / "index.json").write_text(json.dumps(index))
    return blobs


def test_an_image_is_copied_in_and_out(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    blobs = write_layout(tmp_path / "in")
    host = local_cloud_run.url.removeprefix("http://")
    there = f"docker://{host}/acme/skopeo/app:v1"
    skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{tmp_path}/in:v1", there)

    inspected = json.loads(skopeo("inspect", "--tls-verify=false", there))
    assert inspected["Digest"] in blobs
    assert inspected["RepoTags"] == ["v1"]
    assert inspected["Env"] == ["A=1"]

    skopeo("copy", "--preserve-digests", "--src-tls-verify=false", there, f"oci:{tmp_path}/out:v1")
    for digest, contents in blobs.items():
        out = tmp_path / "out/blobs/sha256" / digest.removeprefix("sha256:")
        assert out.read_bytes() == contents

    again = f"docker://{host}/acme/skopeo/again:v2"
    skopeo(
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        there,
        again,
    )
    assert json.loads(skopeo("list-tags", "--tls-verify=false", again[: -len(":v2")]))["Tags"] == [
        "v2"
    ]
    skopeo("delete", "--tls-verify=false", again)
    missing = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", again], capture_output=True, timeout=60
    )
    assert missing.returncode != 0


def write_index(folder: Path) -> dict[str, bytes]:
    """Write a layout like buildx with --provenance: an index of an image and its attestation."""
    write_layout(folder)
    image = json.loads((folder / "index.json").read_text())["manifests"][0]
    del image["annotations"]
    image["platform"] = {"architecture": "amd64", "os": "linux"}
    kind = "application/vnd.oci.image"

    def add(contents: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(contents).hexdigest()
        (folder / "blobs/sha256" / digest).write_bytes(contents)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(contents)}

    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "app", "digest": {"sha256": image["digest"].partition(":")[2]}}],
        "predicate": {"builder": {"id": ""}, "buildType": "https://mobyproject.org/buildkit@v1"},
    }
    layer = add(json.dumps(statement).encode(), "application/vnd.in-toto+json")
    config = {
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    attestation = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": add(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [
            {**layer, "annotations": {"in-toto.io/predicate-type": statement["predicateType"]}}
        ],
    }
    attested = add(json.dumps(attestation).encode(), f"{kind}.manifest.v1+json")
    attested["platform"] = {"architecture": "unknown", "os": "unknown"}
    attested["annotations"] = {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    index = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.index.v1+json",
        "manifests": [image, attested],
    }
    described = add(json.dumps(index, indent=2).encode(), f"{kind}.index.v1+json")
    described["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    layout = {"schemaVersion": 2, "manifests": [described]}
    (folder / "index.json").write_text(json.dumps(layout))
    return {
        f"sha256:{path.name}": path.read_bytes() for path in (folder / "blobs/sha256").iterdir()
    }


def test_an_index_with_an_attestation_is_copied_byte_for_byte(
    local_cloud_run: LocalCloudRun, tmp_path: Path
) -> None:
    """buildx pushes such an index by default; it is copied through two repositories."""
    blobs = write_index(tmp_path / "in")
    host = local_cloud_run.url.removeprefix("http://")
    first, second = (f"docker://{host}/acme/skopeo/{name}:v1" for name in ("index", "copied"))
    copy = ("copy", "--all", "--preserve-digests")
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo(*copy, *plain, f"oci:{tmp_path}/in:v1", first)
    skopeo(*copy, *plain, first, second)
    skopeo(*copy, *plain, second, f"oci:{tmp_path}/out:v1")
    out = {
        f"sha256:{path.name}": path.read_bytes()
        for path in (tmp_path / "out/blobs/sha256").iterdir()
    }
    assert out == blobs
    raw = skopeo("inspect", "--raw", "--tls-verify=false", second).encode()
    assert blobs[f"sha256:{hashlib.sha256(raw).hexdigest()}"] == raw
    inspected = json.loads(skopeo("inspect", "--override-arch=amd64", "--tls-verify=false", second))
    assert inspected["Env"] == ["A=1"]
