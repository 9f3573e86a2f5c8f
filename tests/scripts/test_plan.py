"""`./ship plan` lists the changes that a deploy of the files would make, and no others."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from scripts.release.declared import declared, differences
from tests.scripts.conftest import Project

FILES: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"template": {"spec": {"containers": [{"image": "app"}]}}},
}
# As Cloud Run answers it: filled in, with the marks of who called.
RUNS: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {
        "name": "web",
        "namespace": "1234",
        "uid": "1-2-3",
        "generation": 4,
        "labels": {"cloud.googleapis.com/location": "us-central1", "team": "shop"},
        "annotations": {
            "run.googleapis.com/client-name": "gcloud",
            "run.googleapis.com/ingress": "all",
            "run.googleapis.com/ingress-status": "all",
            "serving.knative.dev/creator": "somebody@example.com",
            "run.googleapis.com/operation-id": "5-6-7",
        },
    },
    "spec": {
        "template": {
            "metadata": {
                "name": "web-00004-abc",
                "labels": {"client.knative.dev/nonce": "x"},
                "annotations": {
                    "autoscaling.knative.dev/maxScale": "100",
                    "client.knative.dev/user-image": "host/web",
                },
            },
            "spec": {
                "containerConcurrency": 80,
                "timeoutSeconds": 300,
                "serviceAccountName": "1234-compute@developer.gserviceaccount.com",
                "containers": [
                    {
                        "image": "host/project/services/web@sha256:00",
                        "ports": [{"name": "http1", "containerPort": 8080}],
                        "resources": {"limits": {"cpu": "1000m", "memory": "512Mi"}},
                        "startupProbe": {
                            "failureThreshold": 1,
                            "periodSeconds": 240,
                            "timeoutSeconds": 240,
                            "tcpSocket": {"port": 8080},
                        },
                    }
                ],
            },
        },
        "traffic": [{"latestRevision": True, "percent": 100}],
    },
    "status": {"observedGeneration": 4},
}  # fmt: skip


def test_defaults_of_cloud_run_are_not_differences() -> None:
    assert differences(FILES, RUNS) == []


def test_a_declared_manifest_contains_nothing_of_the_system() -> None:
    made = declared(RUNS)
    assert made["metadata"] == {
        "name": "web",
        "labels": {"team": "shop"},
        "annotations": {"run.googleapis.com/ingress": "all"},
    }
    template = made["spec"]["template"]
    assert template["metadata"] == {"annotations": {"autoscaling.knative.dev/maxScale": "100"}}
    assert template["spec"]["containers"][0]["image"] == "app"
    assert made.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert made["spec"].keys() == {"template"}
    assert differences(made, RUNS) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["containerConcurrency"], 40, ("template.spec.containerConcurrency", "40", "80")),
        (
            ["containers", 0, "resources", "limits", "memory"],
            "1Gi",
            ("template.spec.containers[0].resources.limits.memory", "1073741824", "536870912"),
        ),
        (
            ["containers", 0, "env"],
            [{"name": "PASSWORD", "value": "hunter2"}],
            ("template.spec.containers[0].env[PASSWORD].name", "PASSWORD", None),
        ),
    ],
)
def test_a_difference_is_named_by_its_path(
    path: list[str | int], value: Any, expected: tuple[str, str | None, str | None]
) -> None:
    runs = copy.deepcopy(RUNS)
    inside: Any = runs["spec"]["template"]["spec"]
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    found = differences(FILES, runs)
    assert expected in [(one.path, one.runs, one.files) for one in found]
    assert "hunter2" not in repr(found)  # I9: a value that is not in git may be a secret


def test_a_missing_service_would_be_created(project: Project) -> None:
    ended = project.ship("plan")
    assert ended.returncode == 4, ended.stderr
    assert f"{project.name} does not exist in us-central1: a deploy creates it" in ended.stdout


def test_from_no_change_to_a_change_and_back(served: Project) -> None:
    """I10: it only reads, and lists what the next deploy then changes."""
    ended = served.ship("plan")
    assert (ended.returncode, "no change" in ended.stdout) == (0, True), ended.stdout
    manifest = served.pipeline / "service.yaml"
    before = served.service()
    text = manifest.read_text()
    manifest.write_text(text.replace("    spec:\n", "    spec:\n      timeoutSeconds: 42\n"))
    ended = served.ship("plan")
    assert ended.returncode == 4
    assert "template.spec.timeoutSeconds  300   42" in ended.stdout
    assert served.ship("plan", "--commit", "HEAD").returncode == 0
    commit = served.commit()
    ended = served.ship("plan", "--commit", "HEAD")
    assert f"commit {commit[:7]}, not built yet" in ended.stdout
    assert served.service() == before
    served.done("deliver")
    assert served.ship("plan", "--commit", "HEAD").returncode == 0
