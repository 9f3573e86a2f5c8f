"""Artifact Registry's own API: reading and deleting images."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import condition, service
from tests.emulator.registry_help import INDEX, MANIFEST, Client


class Api:
    """Requests to Artifact Registry's API about one repository that no other test uses."""

    def __init__(self, url: str) -> None:
        self.name = f"repo-{uuid.uuid4().hex[:8]}"
        self.path = f"projects/acme/locations/us-central1/repositories/{self.name}"
        self._base = f"{url}/v1/{self.path}"

    def __call__(self, method: str, path: str, **params: Any) -> requests.Response:
        return requests.request(method, self._base + path, params=params, timeout=60)

    def ok(self, method: str, path: str, **params: Any) -> Any:
        answer = self(method, path, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def api(local_cloud_run: LocalCloudRun) -> Api:
    return Api(local_cloud_run.url)


@pytest.fixture
def client(local_cloud_run: LocalCloudRun, api: Api) -> Client:
    return Client(local_cloud_run.url, f"acme/{api.name}/app")


def test_docker_images(client: Client, api: Api) -> None:
    before = datetime.now(UTC)
    image = client.image("v1")
    client.image("v2")
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [image]}
    many = client.manifest(index, "many")
    digest = image["digest"]
    found = {
        one["uri"].partition("@")[2]: one for one in api.ok("GET", "/dockerImages")["dockerImages"]
    }
    assert set(found) == {digest, many}
    one = found[digest]
    assert one == api.ok("GET", f"/dockerImages/app@{digest}")
    for field in ("uploadTime", "updateTime"):
        assert (datetime.fromisoformat(one.pop(field)) - before).total_seconds() > -2
    assert int(one.pop("imageSizeBytes")) > 20
    assert one == {
        "name": f"{api.path}/dockerImages/app@{digest}",
        "uri": f"us-central1-docker.pkg.dev/{client.name}@{digest}",
        "tags": ["v1", "v2"],
        "mediaType": MANIFEST,
    }
    assert found[many]["imageManifests"] == [
        {"architecture": "amd64", "os": "linux", "digest": digest, "mediaType": MANIFEST}
    ]


def test_lists_have_pages(client: Client, api: Api) -> None:
    for number in range(5):
        client.image(annotations={"n": str(number)})
    found: list[str] = []
    token = ""
    for _ in range(3):
        page = api.ok("GET", "/dockerImages", pageSize=2, pageToken=token)
        found += [one["name"] for one in page["dockerImages"]]
        token = page.get("nextPageToken", "")
    assert not token
    assert len(set(found)) == 5
    assert api("GET", "/dockerImages", pageSize="x").status_code == 400
    assert api("GET", "/dockerImages", pageToken="x").status_code == 400


def test_packages_versions_and_tags(client: Client, api: Api) -> None:
    digest = client.image("v1")["digest"]
    other = Client(client.host, f"acme/{api.name}/group/other")
    other.image("v9")
    packages = api.ok("GET", "/packages")["packages"]
    assert [one["name"] for one in packages] == [
        f"{api.path}/packages/app",
        f"{api.path}/packages/group%2Fother",
    ]
    assert api.ok("GET", "/packages/group%2Fother") == packages[1]
    (version,) = api.ok("GET", "/packages/app/versions")["versions"]
    assert version["name"] == f"{api.path}/packages/app/versions/{digest}"
    assert version["metadata"]["mediaType"] == MANIFEST
    assert "relatedTags" not in version
    tag = {
        "name": f"{api.path}/packages/app/tags/v1",
        "version": f"{api.path}/packages/app/versions/{digest}",
    }
    full = api.ok("GET", f"/packages/app/versions/{digest}", view="FULL")
    assert full["relatedTags"] == [tag]
    assert api.ok("GET", "/packages/app/tags") == {"tags": [tag]}


def test_a_tagged_version_is_deleted_only_with_force(client: Client, api: Api) -> None:
    digest = client.image("v1")["digest"]
    refused = api("DELETE", f"/packages/app/versions/{digest}")
    assert refused.status_code == 400
    assert refused.json()["error"]["status"] == "FAILED_PRECONDITION"
    assert client("HEAD", "/manifests/v1").status_code == 200
    operation = api.ok("DELETE", f"/packages/app/versions/{digest}", force="true")
    assert operation["done"] is True
    assert client("HEAD", "/manifests/v1").status_code == 404
    assert client("HEAD", f"/manifests/{digest}").status_code == 404


def test_a_version_without_tags_is_deleted(client: Client, api: Api) -> None:
    digest = client.image("v1")["digest"]
    assert api.ok("DELETE", "/packages/app/tags/v1") == {}
    assert client("HEAD", f"/manifests/{digest}").status_code == 200
    api.ok("DELETE", f"/packages/app/versions/{digest}")
    assert client("HEAD", f"/manifests/{digest}").status_code == 404


def test_a_package_is_deleted_with_all_its_versions(client: Client, api: Api) -> None:
    client.image("v1")
    client.image("v2", annotations={"n": "2"})
    assert api.ok("DELETE", "/packages/app")["done"] is True
    assert api.ok("GET", "/packages") == {}
    assert client("GET", "/tags/list").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/packages/none",
        "/packages/none/versions",
        "/packages/none/tags",
        "/packages/app/versions/v1",
        "/packages/app/versions/sha256:abc",
        "/dockerImages/app",
        "/dockerImages/app@v1",
        "/dockerImages/..%2Fapp@v1",
    ],
)
def test_not_found(client: Client, api: Api, path: str) -> None:
    client.image("v1")
    answer = api("GET", path)
    assert answer.status_code == 404, answer.text
    assert answer.json()["error"]["status"] == "NOT_FOUND"


def test_a_deleted_image_is_not_deployed(cloud_run) -> None:
    """Cloud Run's message names the image, and the live revision keeps serving."""
    kept = cloud_run.push("kept")
    url = cloud_run.ready(service("pruned", kept, "pruned-a"))["status"]["url"]
    image = cloud_run.push("gone")
    name, _, digest = image.partition("/")[2].partition("@")
    gone = Client(cloud_run.url, name)("DELETE", f"/manifests/{digest}")
    assert gone.status_code == 202
    assert cloud_run.replace(service("pruned", image, "pruned-b")).status_code == 200
    settled = cloud_run.settled("pruned")
    ready = condition(settled)
    assert (ready["status"], f"Image '{image}' not found." in ready["message"]) == ("False", True)
    reason = condition(cloud_run.revision("pruned-b"))["reason"]
    assert reason == "ContainerMissing"
    assert cloud_run.http.get(url).json()["revision"] == "pruned-a"
