"""Long-running operations, as gcloud waits for them."""

from __future__ import annotations

import pytest

from tests.emulator.cloud_run_help import CloudRun, condition, container, service

ANNOTATION = "run.googleapis.com/operation-id"


def operation_of(document) -> str:
    return document["metadata"]["annotations"][ANNOTATION]


def wait(cloud_run: CloudRun, name: str, timeout: str = "30s"):
    url = f"{cloud_run.base}/operations/{name}:wait"
    return cloud_run.http.post(url, json={"timeout": timeout})


def test_waiting_for_a_write_ends_when_the_service_is_ready(cloud_run, image):
    created = cloud_run.create(service("awaited", image, "awaited-a")).json()
    name = operation_of(created)
    early = wait(cloud_run, name, "0s").json()
    assert early["done"] is False
    done = wait(cloud_run, name).json()
    assert done["name"].endswith(f"/locations/us-central1/operations/{name}")
    assert done["done"] is True
    assert condition(done["response"])["status"] == "True"
    assert done["response"]["status"]["latestReadyRevisionName"] == "awaited-a"
    assert cloud_run.http.get(f"{cloud_run.base}/operations/{name}").json() == done


def test_each_write_has_a_new_operation_whatever_the_client_sends(cloud_run, image):
    before = cloud_run.ready(service("rewritten", image, "rewritten-a"))
    before["metadata"]["annotations"]["note"] = "mine"
    after = cloud_run.replace(before).json()
    assert operation_of(after) != operation_of(before)
    for document in (before, after):
        assert wait(cloud_run, operation_of(document)).json()["done"] is True


def test_a_failed_operation_has_the_conditions_message(cloud_run, image):
    broken = service("unstartable", image)
    container(broken)["command"] = ["nonsense"]
    failed = wait(cloud_run, operation_of(cloud_run.create(broken).json())).json()
    assert failed["error"]["code"] == 9
    assert failed["error"]["message"] == condition(cloud_run.get("unstartable"))["message"]
    assert "response" not in failed


def test_a_deleted_service_ends_its_operations(cloud_run, image):
    name = operation_of(cloud_run.ready(service("removed", image)))
    cloud_run.http.delete(f"{cloud_run.base}/services/removed")
    assert wait(cloud_run, name).json()["error"]["code"] == 5


@pytest.mark.parametrize("timeout", ["soon", "-1s"])
def test_an_invalid_timeout_is_refused(cloud_run, timeout):
    assert wait(cloud_run, "any", timeout).status_code == 400


def test_an_unknown_operation_is_not_found(cloud_run):
    assert wait(cloud_run, "nothing").status_code == 404
