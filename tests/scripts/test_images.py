"""The check before a deploy reads the image's manifest back from the registry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.cloud.google import ApiError, Google
from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.errors import Failed, Refused, UsageError
from scripts.image.commit_images import CommitImages
from scripts.machine import git
from tests.scripts.conftest import Project

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
OTHER = "sha256:" + "0" * 64
IMMUTABLE = "cannot update tag 6ef91577. The repository has enabled tag immutability"


class Pushed:
    """A project whose newest commit is in the registry, and what can be wrong with that."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.digest: str = project.done("build")["digest"]
        self.commit = git.commit(project.folder)
        pipeline = pipelines.load(project.folder, None, "local")
        self.images = CommitImages(pipeline, Google(pipeline), project.folder)
        self.url = f"{project.cloud_run.url}/v2/{self.images.repository.path}"

    def manifest(self, reference: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/manifests/{reference}", headers={"Accept": OCI})
        document: dict[str, Any] = answer.json()
        return document

    def put(self, tag: str, document: Any, media_type: str = OCI) -> str:
        """Push a manifest; its digest."""
        answer = requests.put(
            f"{self.url}/manifests/{tag}",
            data=json.dumps(document),
            headers={"Content-Type": media_type},
        )
        assert answer.status_code == 201, answer.text
        return str(answer.headers["Docker-Content-Digest"])

    def with_config(self, tag: str, **changes: Any) -> str:
        """Push the image again under a tag, with another configuration; its digest."""
        manifest = self.manifest(self.commit.sha)
        digest = manifest["config"]["digest"]
        config = requests.get(f"{self.url}/blobs/{digest}").json() | changes
        body = json.dumps(config).encode()
        started = requests.post(f"{self.url}/blobs/uploads/")
        place = self.project.cloud_run.url + started.headers["Location"]
        name = "sha256:" + hashlib.sha256(body).hexdigest()
        assert requests.put(place, data=body, params={"digest": name}).status_code == 201
        manifest["config"] |= {"digest": name, "size": len(body)}
        return self.put(tag, manifest)

    def refused(self, digest: str | None = None) -> Refused | UsageError:
        with pytest.raises((Refused, UsageError)) as caught:
            self.images.check(self.commit, digest)
        return caught.value


@pytest.fixture
def pushed(project: Project) -> Pushed:
    return Pushed(project)


def test_the_commits_own_image(pushed: Pushed) -> None:
    reference = pushed.images.repository.by_digest(pushed.digest)
    assert pushed.images.check(pushed.commit) == reference
    assert pushed.images.check(pushed.commit, pushed.digest) == reference


def test_no_image(pushed: Pushed) -> None:
    pushed.project.commit()
    error = pushed.project.ship("deploy")
    assert error.returncode == 2
    assert f"{pushed.images.repository} has no image of commit" in error.stderr
    assert "./ship build" in error.stderr


@pytest.mark.parametrize("digest", ["latest", "sha256:12", OTHER.upper(), f"{OTHER}0", ""])
def test_text_that_is_not_a_digest(pushed: Pushed, digest: str) -> None:
    error = pushed.refused(digest)
    assert isinstance(error, UsageError)
    assert error.message == f"--digest {digest}: not a digest: sha256: and 64 hexadecimal digits"


def test_a_digest_that_is_not_in_the_registry(pushed: Pushed) -> None:
    error = pushed.refused(OTHER)
    assert isinstance(error, UsageError)
    assert error.message == f"--digest {OTHER}: {pushed.images.repository} has no such image"
    assert "./ship build" in (error.hint or "")


def test_a_digest_of_another_commit(pushed: Pushed) -> None:
    earlier = pushed.commit.sha
    pushed.project.commit()
    later = Pushed(pushed.project)
    error = later.refused(pushed.digest)
    assert isinstance(error, Refused)
    assert error.message == (
        f"--digest {pushed.digest} is not the image of commit {later.commit.short}:"
        f" the tag {later.commit.sha} names {later.digest}"
    )
    assert error.hint == f"it was built from {earlier}: --commit {earlier}"


def test_a_digest_whose_commit_has_no_tag(pushed: Pushed) -> None:
    pushed.project.commit()
    pushed.commit = git.commit(pushed.project.folder)
    assert f"there is no tag {pushed.commit.sha}" in pushed.refused(pushed.digest).message


def test_a_digest_that_the_commits_tag_names_no_longer(pushed: Pushed) -> None:
    pushed.with_config(pushed.commit.sha, author="someone else")
    error = pushed.refused(pushed.digest)
    assert "is not the image of commit" in error.message
    assert error.hint == "leave --digest out to deliver the commit's own image"


def test_a_tag_that_is_not_this_commits(pushed: Pushed) -> None:
    """Someone gave another commit's image this commit's tag."""
    earlier = pushed.commit.sha
    manifest = pushed.manifest(earlier)
    commit = pushed.project.commit()
    pushed.put(commit, manifest)
    refused = pushed.project.ship("deploy")
    assert refused.returncode == 3
    assert f"{pushed.images.repository}:{commit} is not commit {commit[:7]}'s image" in (
        refused.stderr
    )
    assert f"says {earlier}" in refused.stderr
    # The image itself is the other commit's: only the tag must go.
    assert f"delete {pushed.images.repository}:{commit} from the registry" in refused.stderr


@pytest.mark.parametrize("index", [False, True])
def test_an_image_of_an_arm_laptop(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch, index: bool
) -> None:
    """The error has Cloud Run's own words, which people search for, and the fix."""
    digest = pushed.with_config(pushed.commit.sha, architecture="arm64", os="linux")
    if index:
        arm = {"mediaType": OCI, "digest": digest, "size": 1}
        nothing = {"os": "unknown", "architecture": "unknown"}
        entries = [
            {**arm, "platform": {"os": "linux", "architecture": "arm64"}},
            {**arm, "platform": nothing},
        ]
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        digest = pushed.put(pushed.commit.sha, document, INDEX)
    monkeypatch.setattr(CommitImages, "platform", "linux/amd64")
    error = pushed.refused()
    assert isinstance(error, Refused)
    kind = INDEX if index else OCI
    assert f"@{digest} is for linux/arm64; local takes linux/amd64" in error.message
    assert f"Container manifest type '{kind}' must support amd64/linux" in error.message
    assert "Arm laptop" in error.message
    assert "then ./ship build" in (error.hint or "")


def test_room_is_made_with_the_registrys_own_command(pushed: Pushed) -> None:
    images = pushed.images
    there = ImageReference.parse("us-central1-docker.pkg.dev/acme/services/app")
    image, tag = there.by_digest(OTHER), there.by_tag(pushed.commit.sha)
    docker = "gcloud artifacts docker"
    assert images._away(image).startswith(f"{docker} images delete {image} --delete-tags; then ./")
    assert images._away(tag).startswith(f"{docker} tags delete {tag}; then ./ship build")


def test_an_index_with_attestations_is_taken(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As BuildKit pushes it: an index of the image and its attestations."""
    amd64 = pushed.with_config("amd64", architecture="amd64", os="linux")
    manifest = pushed.manifest("amd64")
    kinds = ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"]
    blob = manifest["layers"][0] | {"mediaType": "application/vnd.in-toto+json"}
    layers = [{**blob, "annotations": {"in-toto.io/predicate-type": kind}} for kind in kinds]
    attested = pushed.put("attested", {**manifest, "layers": layers})
    entry = {"mediaType": OCI, "size": 1}
    entries = [
        {**entry, "digest": amd64, "platform": {"os": "linux", "architecture": "amd64"}},
        {
            **entry,
            "digest": attested,
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    digest = pushed.put(pushed.commit.sha, document, INDEX)
    monkeypatch.setattr(CommitImages, "platform", "linux/amd64")
    reference = pushed.images.check(pushed.commit, digest)
    assert reference.digest == digest
    assert pushed.images.attestations(reference) == kinds
    again = pushed.project.done("build")
    assert again["built"] is False
    assert again["attestations"] == kinds


def test_an_error_of_a_build_is_not_hidden_by_an_image(pushed: Pushed) -> None:
    """Only a push that an immutable tag refuses is done by someone else's image."""
    fault = {"name": "status", "code": 403, "method": "POST", "path": "*/builds"}
    pushed.project.cloud_run.local("POST", "faults", fault)
    said: list[str] = []
    try:
        with pytest.raises(ApiError, match="403"):
            pushed.images.build(pushed.commit, "cloud-build", said.append)
    finally:
        pushed.project.cloud_run.local("DELETE", "faults/status")
    assert said == ["no layers to reuse: git knows no earlier commit here"]


def test_a_push_that_comes_second_takes_the_first_ones_image(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(*_: object) -> str:
        raise Failed(
            "exit code 1", evidence=[f"cannot update tag {pushed.commit.sha}. {IMMUTABLE}"]
        )

    monkeypatch.setattr(pushed.images, "_with_docker", push)
    said: list[str] = []
    image = pushed.images.build(pushed.commit, "docker", said.append)
    assert image == pushed.images.repository.by_digest(pushed.digest)
    assert said == ["someone else has pushed it in the meantime"]
