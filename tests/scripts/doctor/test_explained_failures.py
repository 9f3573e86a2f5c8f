"""A verb that fails with a known error explains it, and points to the doctor."""

from __future__ import annotations

import re
from pathlib import Path
from platform import machine

from scripts.cloud import known_errors
from tests.emulator.registry_help import Client, labels_of
from tests.scripts.bootstrap_help import NAME, OPS, STAGING
from tests.scripts.doctor.doctor_help import (
    BOOTSTRAP,
    DEPLOYER,
    REPOSITORY,
    SERVICES,
    Patient,
    build,
    fails,
    fake_docker,
)


def test_a_denied_delivery_names_the_account(patient: Patient) -> None:
    build(patient)
    with patient.without_role(f"{SERVICES}/{NAME}", DEPLOYER):
        said = fails(patient, "deliver", "DEPLOYER")
    deployer = patient.variables["DEPLOYER"]
    assert f"This means: {deployer} lacks run.services." in said
    assert f"-> {BOOTSTRAP}" in said


def test_a_denied_push_names_the_account(patient: Patient) -> None:
    patient.project.commit()
    with patient.without_role(REPOSITORY, "roles/artifactregistry.writer"):
        said = fails(patient, "build", "PUSHER", code=2)
    assert f"This means: {patient.variables['PUSHER']} lacks artifactregistry." in said
    with patient.fault("token-exchange"):
        said = fails(patient, "build", "PUSHER", code=2)
    assert f"This means: the registry of {OPS} does not accept these credentials" in said


def test_dockers_own_words_are_explained(patient: Patient, tmp_path: Path) -> None:
    patient.project.commit()
    docker = fake_docker(
        tmp_path,
        'case "$2" in inspect) echo "Driver: docker"; exit 0;; esac\n'
        "echo \"ERROR: denied: Token exchange failed for project 'team-ops'. Caller does not have"
        " permission 'artifactregistry.repositories.uploadArtifacts'.\" >&2; exit 1",
    )
    with patient.file("staging.yaml", lambda text: text.replace("builder: cloud-build", "")):
        patient.project.git("commit", "--quiet", "--all", "--message", "with docker")
        said = fails(patient, "build", "PUSHER", **docker)
    patient.project.git("commit", "--quiet", "--all", "--message", "without")
    assert "This means: the registry of team-ops does not accept these credentials" in said
    assert f"{patient.variables['PUSHER']} may not push there" in said


def test_an_image_for_another_platform_is_not_delivered(patient: Patient) -> None:
    sha = patient.project.commit()
    client = Client(patient.url, f"{OPS}/services/{NAME}")
    client.session.headers.update(patient.http.headers)
    other = "linux/arm64" if machine() == "x86_64" else "linux/amd64"
    client.image(sha, other, labels_of(sha, patient.project.time(sha)))
    ended = patient.project.ship(
        "deliver", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("DEPLOYER")
    )
    assert ended.returncode == 3, ended.stderr
    assert f"is for {other}" in ended.stderr
    patient.project.commit()


def test_a_container_that_does_not_listen(patient: Patient) -> None:
    # The words in the container's log are not Google's.
    build(patient, start="exit", note="Permission 'storage.objects.get' denied on resource 'x'")
    said = fails(patient, "deliver", "DEPLOYER")
    assert "starting Permission 'storage.objects.get' denied" in said
    assert "This means: the container did not listen on $PORT in time" in said
    found = patient.one_wrong("service")
    assert found["known"] == "port"
    patient.project.commit(start="listen")
    patient.deliver()
    assert patient.wrong() == []


def test_a_disabled_api_ends_a_delivery_with_the_command(patient: Patient) -> None:
    run = f"projects/{STAGING}/services/run.googleapis.com"
    patient.api("POST", f"{run}:disable", {})
    said = fails(patient, "deliver", "DEPLOYER")
    patient.api("POST", f"{run}:enable", {})
    assert "This means: the API run.googleapis.com is not enabled" in said
    assert "-> gcloud services enable run.googleapis.com --project" in said


def test_other_errors_stay_as_they_are(patient: Patient) -> None:
    ended = patient.project.ship("deliver", "--env", "stagin")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "  -> did you mean 'staging'?"


def test_no_billing_account_ends_a_bootstrap_with_the_command(patient: Patient) -> None:
    with patient.fault("no-billing"):
        ended = patient.bootstrap("bare", "--yes")
    assert ended.returncode == 1
    assert re.search(r"This means: project \d+ has no billing account", ended.stderr), ended.stderr
    assert "-> gcloud billing projects link " in ended.stderr
    assert f"-> ./ship doctor {NAME} --env bare" in ended.stderr


def test_a_policy_that_forbids_all_users_is_explained(patient: Patient) -> None:
    """Shipway never grants that role, but someone who does it by hand gets this error."""
    binding = {"role": "roles/run.invoker", "members": ["allUsers"]}
    with patient.fault("org-policy-domains"):
        answer = patient.http.post(
            f"{patient.url}/v1/{SERVICES}/{NAME}:setIamPolicy",
            json={"policy": {"bindings": [binding]}},
            timeout=20,
        )
    found = known_errors.explain(answer.json()["error"]["message"])
    assert found is not None
    assert found.name == "org-policy"
    assert "forbids allUsers" in found.means
