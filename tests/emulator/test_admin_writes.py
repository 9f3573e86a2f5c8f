"""The Admin API's writes: the accepted ones, and how others are refused."""

from __future__ import annotations

import copy
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.emulator.cloud_run_help import CloudRun, condition, container, service, tag_url


def error_of(response) -> dict:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    return error


def test_a_new_service_becomes_ready_with_all_traffic_on_its_revision(cloud_run, image):
    created = cloud_run.create(service("fresh", image, "fresh-a"))
    assert created.status_code == 200
    assert condition(created.json())["status"] == "Unknown"
    ready = cloud_run.settled("fresh")
    status = ready["status"]
    assert [condition(ready, kind)["status"] for kind in ("Ready", "ConfigurationsReady")] == [
        "True",
        "True",
    ]
    assert status["observedGeneration"] == ready["metadata"]["generation"] == 1
    assert status["latestCreatedRevisionName"] == status["latestReadyRevisionName"] == "fresh-a"
    assert status["address"]["url"] == status["url"]
    assert status["traffic"] == [
        {"latestRevision": True, "percent": 100, "revisionName": "fresh-a"}
    ]
    assert cloud_run.http.get(status["url"]).json()["revision"] == "fresh-a"


def test_a_revision_names_its_service_and_its_image(cloud_run, image):
    document = service("labeled", image, "labeled-a")
    document["spec"]["template"]["metadata"]["labels"] = {"commit-sha": "abc"}
    document["spec"]["template"]["metadata"]["annotations"] = {"note": "mine"}
    ready = cloud_run.ready(document)
    revision = cloud_run.revision("labeled-a")
    labels = revision["metadata"]["labels"]
    assert labels["serving.knative.dev/service"] == "labeled"
    assert labels["serving.knative.dev/configuration"] == "labeled"
    assert labels["serving.knative.dev/configurationGeneration"] == "1"
    assert labels["serving.knative.dev/serviceUid"] == ready["metadata"]["uid"]
    assert labels["cloud.googleapis.com/location"] == "us-central1"
    assert labels["commit-sha"] == "abc"
    assert revision["metadata"]["annotations"]["note"] == "mine"
    assert revision["status"]["imageDigest"] == image
    assert {c["type"]: c["status"] for c in revision["status"]["conditions"]} == dict.fromkeys(
        ("Ready", "Active", "ContainerHealthy", "ContainerReady", "ResourcesAvailable"), "True"
    )


def test_a_template_without_a_name_gets_one_and_an_unchanged_one_makes_no_revision(
    cloud_run, image
):
    first = cloud_run.ready(service("named", image))
    name = first["status"]["latestCreatedRevisionName"]
    assert re.fullmatch(r"named-00001-[a-z]{3}", name)
    again = cloud_run.ready(service("named", image))
    assert again["status"]["latestCreatedRevisionName"] == name
    assert again["metadata"]["generation"] == 1
    changed = cloud_run.ready(service("named", image, COLOR="red"))
    assert re.fullmatch(r"named-00002-[a-z]{3}", changed["status"]["latestCreatedRevisionName"])
    assert changed["metadata"]["generation"] == 2


def test_a_stale_resource_version_is_refused_with_aborted(cloud_run, image):
    stale = cloud_run.ready(service("stale", image, "stale-a"))
    fresh = copy.deepcopy(stale)
    fresh["metadata"]["labels"]["touched"] = "yes"
    assert cloud_run.replace(fresh).status_code == 200
    refused = cloud_run.replace(stale)
    assert refused.status_code == 409
    assert error_of(refused)["status"] == "ABORTED"
    del stale["metadata"]["resourceVersion"]
    assert cloud_run.replace(stale).status_code == 200


def test_exactly_one_of_several_concurrent_writers_wins(cloud_run, image):
    current = cloud_run.ready(service("raced", image, "raced-a"))

    def write(number: int) -> int:
        mine = copy.deepcopy(current)
        mine["metadata"]["annotations"]["winner"] = str(number)
        with CloudRun(cloud_run.url).http as http:
            url = f"{cloud_run.base}/services/raced"
            return http.put(url, json=mine).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(write, range(8)))
    assert sorted(codes) == [200] + [409] * 7
    winner = cloud_run.get("raced")["metadata"]["annotations"]["winner"]
    assert winner == str(codes.index(200))


def test_a_used_revision_name_with_different_content_is_refused(cloud_run, image):
    cloud_run.ready(service("taken", image, "taken-a"))
    refused = cloud_run.replace(service("taken", image, "taken-a", COLOR="red"))
    assert refused.status_code == 409
    assert error_of(refused)["status"] == "ALREADY_EXISTS"
    assert error_of(refused)["message"] == (
        "Revision named 'taken-a' with different configuration already exists."
    )
    annotated = service("taken", image, "taken-a")
    annotated["spec"]["template"]["metadata"]["annotations"] = {"note": "new"}
    assert cloud_run.replace(annotated).status_code == 409
    assert cloud_run.replace(service("taken", image, "taken-a")).status_code == 200


def test_creating_an_existing_service_and_replacing_a_missing_one_are_refused(cloud_run, image):
    cloud_run.ready(service("twice", image, "twice-a"))
    refused = cloud_run.create(service("twice", image, "twice-a"))
    assert (refused.status_code, error_of(refused)["status"]) == (409, "ALREADY_EXISTS")
    missing = cloud_run.replace(service("missing", image))
    assert (missing.status_code, error_of(missing)["status"]) == (404, "NOT_FOUND")


def test_a_dry_run_checks_the_write_and_changes_nothing(cloud_run, image):
    dry = cloud_run.create(service("dry", image, "dry-a"), dryRun="all")
    assert dry.status_code == 200
    assert dry.json()["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert cloud_run.http.get(f"{cloud_run.base}/services/dry").status_code == 404
    before = cloud_run.ready(service("dry", image, "dry-a"))
    assert cloud_run.replace(service("dry", image, "dry-b"), dryRun="all").status_code == 200
    bad = cloud_run.replace(service("dry", image, "dry-a", A="1"), dryRun="all")
    assert bad.status_code == 409
    assert cloud_run.get("dry") == before
    assert cloud_run.http.get(f"{cloud_run.base}/revisions/dry-b").status_code == 404
    gone = cloud_run.http.delete(f"{cloud_run.base}/services/dry", params={"dryRun": "all"})
    assert gone.status_code == 200
    assert cloud_run.get("dry") == before


BAD = [
    (("metadata", "nam"), "x", "metadata.nam"),
    (
        ("spec", "template", "spec", "containers", 0, "imag"),
        "x",
        "spec.template.spec.containers[0]",
    ),
    (
        ("spec", "template", "spec", "containers", 0, "env"),
        [{"name": "PORT", "value": "1"}],
        "env[0]",
    ),
    (("spec", "template", "spec", "timeoutSeconds"), "soon", "spec.template.spec.timeoutSeconds"),
    (("spec", "template", "spec", "timeoutSeconds"), 4000, "spec.template.spec.timeoutSeconds"),
    (("spec", "template", "metadata"), {"name": "other-a"}, "spec.template.metadata.name"),
    (("spec", "template", "metadata"), {"name": "checked-A"}, "spec.template.metadata.name"),
    (("spec", "template", "metadata"), {"name": "checked-" + "a" * 56}, "template.metadata.name"),
    (("spec", "traffic"), [{"latestRevision": True, "percent": 99}], "spec.traffic"),
    (("spec", "traffic"), [{"percent": 100}], "spec.traffic[0]"),
    (
        ("spec", "traffic"),
        [{"latestRevision": True, "percent": 100, "tag": "Not-Ok"}],
        "spec.traffic[0].tag",
    ),
    (
        ("spec", "traffic"),
        [
            {"latestRevision": True, "percent": 100, "tag": "one"},
            {"latestRevision": True, "tag": "one"},
        ],
        "spec.traffic[1].tag",
    ),
    (("kind",), "Servce", "kind"),
    (("metadata", "name"), "-checked", "metadata.name"),
    (("metadata", "labels"), {"Team": "a"}, "metadata.labels[Team]"),
    (("metadata", "labels"), {"1team": "a"}, "metadata.labels[1team]"),
    (("metadata", "labels"), {"example.com/team": "a"}, "metadata.labels[example.com/team]"),
    (("metadata", "labels"), {"team": "Blue"}, "metadata.labels[team]"),
    (("metadata", "labels"), {"team": "a" * 64}, "metadata.labels[team]"),
    (("metadata", "labels"), {f"l{n}": "" for n in range(65)}, "metadata.labels"),
    (("spec", "template", "metadata"), {"labels": {"a b": ""}}, "spec.template.metadata.labels"),
    (
        ("spec", "template", "metadata"),
        {"annotations": {"autoscaling.knative.dev/minScale": "some"}},
        "annotations[autoscaling.knative.dev/minScale]",
    ),
    (
        ("metadata", "annotations"),
        {"run.googleapis.com/minScale": "some"},
        "annotations[run.googleapis.com/minScale]",
    ),
    (
        ("spec", "template", "metadata"),
        {"annotations": {"autoscaling.knative.dev/maxScale": "0"}},
        "annotations[autoscaling.knative.dev/maxScale]",
    ),
    (
        ("spec", "template", "metadata"),
        {
            "annotations": {
                "autoscaling.knative.dev/minScale": "3",
                "autoscaling.knative.dev/maxScale": "2",
            }
        },
        "annotations[autoscaling.knative.dev/minScale]",
    ),
]


@pytest.mark.parametrize(("path", "value", "field"), BAD)
def test_an_invalid_service_is_refused_and_the_field_is_named(cloud_run, image, path, value, field):
    document = service("checked", image)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    refused = cloud_run.create(document)
    assert refused.status_code == 400, refused.text
    assert error_of(refused)["status"] == "INVALID_ARGUMENT"
    assert field in error_of(refused)["message"]


def test_labels_may_use_any_alphabet_and_be_empty(cloud_run, image):
    document = service("alphabets", image)
    labels = {"team": "", "équipe": "ünï_1-x", "client.knative.dev/nonce": "Abc"}
    document["metadata"]["labels"] = labels
    answer = cloud_run.create(document, dryRun="all")
    assert answer.status_code == 200, answer.text
    assert labels.items() <= answer.json()["metadata"]["labels"].items()


def test_a_tag_and_its_services_name_have_at_most_63_characters_together(cloud_run, image):
    name = "lengthy-" + "a" * 32
    document = service(name, image, traffic=[{"latestRevision": True, "percent": 100}])
    document["spec"]["traffic"][0]["tag"] = "t" * (63 - len(name) - len("---"))
    assert cloud_run.create(document, dryRun="all").status_code == 200
    document["spec"]["traffic"][0]["tag"] += "t"
    refused = cloud_run.create(document, dryRun="all")
    assert "spec.traffic[0].tag" in error_of(refused)["message"]


def test_traffic_follows_the_latest_ready_revision(cloud_run, image):
    cloud_run.ready(service("follows", image, "follows-a"))
    broken = service("follows", image, "follows-b")
    container(broken)["command"] = ["nonsense"]
    cloud_run.replace(broken)
    failed = cloud_run.settled("follows")
    assert condition(failed)["reason"] == "HealthCheckContainerError"
    assert failed["status"]["latestCreatedRevisionName"] == "follows-b"
    assert failed["status"]["latestReadyRevisionName"] == "follows-a"
    latest = {"latestRevision": True, "percent": 100}
    assert failed["status"]["traffic"] == [{**latest, "revisionName": "follows-a"}]
    assert cloud_run.http.get(failed["status"]["url"]).json()["revision"] == "follows-a"
    fixed = cloud_run.ready(service("follows", image, "follows-c"))
    assert fixed["status"]["traffic"] == [{**latest, "revisionName": "follows-c"}]
    assert cloud_run.http.get(fixed["status"]["url"]).json()["revision"] == "follows-c"


def test_traffic_to_a_missing_revision_is_refused(cloud_run, image):
    document = service(
        "missing", image, "missing-a", [{"revisionName": "missing-b", "percent": 100}]
    )
    refused = cloud_run.create(document)
    assert refused.status_code == 404
    assert "missing-b" in error_of(refused)["message"]


def test_targets_with_zero_percent_are_kept_only_for_their_tag(cloud_run, image):
    cloud_run.ready(service("zeros", image, "zeros-a"))
    second = service("zeros", image, "zeros-b", A="1")
    second["spec"]["traffic"] = [
        {"revisionName": "zeros-a", "percent": 100},
        {"revisionName": "zeros-b", "percent": 0},
        {"revisionName": "zeros-b", "percent": 0, "tag": "next"},
    ]
    ready = cloud_run.ready(second)
    assert ready["spec"]["traffic"] == [
        {"revisionName": "zeros-a", "percent": 100},
        {"revisionName": "zeros-b", "tag": "next"},
    ]
    assert cloud_run.http.get(ready["status"]["url"]).json()["revision"] == "zeros-a"
    assert cloud_run.http.get(tag_url(ready, "next")).json()["revision"] == "zeros-b"
    assert condition(cloud_run.revision("zeros-a"), "Active")["status"] == "True"


def test_the_clients_template_survives_a_traffic_only_write(cloud_run, image):
    document = service("kept", image, "kept-a")
    container(document)["startupProbe"] = {"httpGet": {"path": "/ok"}, "periodSeconds": 1}
    before = cloud_run.ready(document)
    after = cloud_run.shift("kept", [{"revisionName": "kept-a", "percent": 100, "tag": "blue"}])
    assert after["spec"]["template"] == before["spec"]["template"]
    assert after["metadata"]["generation"] == 2
    assert after["status"]["latestCreatedRevisionName"] == "kept-a"


def test_deleting_a_service_removes_its_revisions_and_its_url(cloud_run, image):
    ready = cloud_run.ready(service("doomed", image, "doomed-a"))
    assert cloud_run.http.get(ready["status"]["url"]).status_code == 200
    gone = cloud_run.http.delete(f"{cloud_run.base}/services/doomed")
    assert (gone.status_code, gone.json()["status"]) == (200, "Success")
    assert cloud_run.http.get(f"{cloud_run.base}/services/doomed").status_code == 404
    assert cloud_run.http.get(f"{cloud_run.base}/revisions/doomed-a").status_code == 404
    again = cloud_run.ready(service("doomed", image, "doomed-a", NEW="1"))
    assert again["metadata"]["uid"] != ready["metadata"]["uid"]


def test_only_an_unused_revision_can_be_deleted(cloud_run, image):
    cloud_run.ready(service("spent", image, "spent-a"))
    cloud_run.ready(service("spent", image, "spent-b", A="1"))
    plan = [{"revisionName": "spent-b", "percent": 100}, {"revisionName": "spent-a", "tag": "old"}]
    cloud_run.shift("spent", plan)
    for name in ("spent-a", "spent-b"):
        refused = cloud_run.http.delete(f"{cloud_run.base}/revisions/{name}")
        assert (refused.status_code, error_of(refused)["status"]) == (400, "FAILED_PRECONDITION")
    cloud_run.shift("spent", plan[:1])
    assert cloud_run.http.delete(f"{cloud_run.base}/revisions/spent-a").status_code == 200
    assert cloud_run.http.get(f"{cloud_run.base}/revisions/spent-a").status_code == 404
    assert cloud_run.settled("spent")["status"]["latestReadyRevisionName"] == "spent-b"
