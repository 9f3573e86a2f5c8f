"""`ship doctor` on access: permissions, accounts, the provider, granted roles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from emulator.recorder import VARIABLE
from scripts.config import pipelines
from scripts.doctor import access
from scripts.doctor.case import Case
from scripts.setup import permissions
from tests.github_rest import GitHub, needs_gh
from tests.scripts.bootstrap_help import CLOUD_BUILD, NAME, OPS, STAGING
from tests.scripts.doctor.doctor_help import (
    BOOTSTRAP,
    DEPLOYER,
    IDS,
    REPOSITORY,
    SERVICES,
    Finding,
    Patient,
    build,
)


@pytest.mark.parametrize(
    ("resource", "role", "method"),
    [
        (REPOSITORY, "roles/artifactregistry.writer", "GET"),
        (f"projects/{STAGING}", f"projects/{STAGING}/roles/shipwayWatcher", "POST"),
        (f"{SERVICES}/{NAME}", DEPLOYER, "GET"),
        (
            f"projects/{STAGING}/serviceAccounts/runtime@{STAGING}.iam.gserviceaccount.com",
            "roles/iam.serviceAccountUser",
            "POST",
        ),
    ],
)
def test_a_role_that_was_removed(patient: Patient, resource: str, role: str, method: str) -> None:
    which = "PUSHER" if "writer" in role else "DEPLOYER"
    with patient.without_role(resource, role, method):
        found = patient.wrong()
        assert len(found) == (2 if which == "PUSHER" else 1), "the account that builds pushes, too"
        for one in found:
            assert one["check"] == "roles"
            assert f"has no {role} on {resource}" in one["found"]
            assert one["fix"] == BOOTSTRAP
        lacking = patient.wrong(credentials=patient.speak_as(which))
        assert {one["known"] for one in lacking} == {"permission-denied"}
        assert lacking[0]["found"].startswith(f"{patient.variables[which]} lacks ")
        assert lacking[0]["fix"] == BOOTSTRAP
        patient.bootstrap_fixes_it()


def test_a_role_on_the_bucket_of_builds(patient: Patient) -> None:
    planned = patient.access("staging")
    [uploads] = [
        one
        for one in planned.bindings
        if (one.resource.kind, one.role) == ("bucket", permissions.OBJECT_CREATOR)
    ]
    patient.take(uploads)
    lacking = patient.one_wrong("permissions", credentials=patient.speak_as("PUSHER"))
    assert f"{planned.pusher.email} lacks storage.objects.create on b/" in lacking["found"]
    patient.bootstrap_fixes_it()


def test_a_role_that_only_others_have(patient: Patient) -> None:
    resource, role = f"{SERVICES}/{NAME}", DEPLOYER
    with patient.without_role(resource, role):
        patient.give(resource, role, "user:other@example.com")
        patient.give(
            resource, role, f"serviceAccount:{patient.variables['DEPLOYER']}",
            condition={"title": "once", "expression": "false"},
        )  # fmt: skip
        found = patient.one_wrong("roles")
    assert f"has no {role} on {resource}" in found["found"]


def test_a_user_without_the_roles(patient: Patient) -> None:
    """The fix grants exactly the role that is missing."""
    email = f"dev@{STAGING}.iam.gserviceaccount.com"
    base = f"projects/{STAGING}/serviceAccounts"
    patient.api("POST", base, {"accountId": "dev-person"})
    email = f"dev-person@{STAGING}.iam.gserviceaccount.com"
    pool = patient.variables["WORKLOAD_IDENTITY_PROVIDER"].partition("/providers/")[0]
    member = f"principalSet://iam.googleapis.com/{pool}/*"
    binding = {"role": "roles/iam.workloadIdentityUser", "members": [member]}
    patient.api("POST", f"{base}/{email}:setIamPolicy", {"policy": {"bindings": [binding]}})
    patient.owner.provider = patient.variables["WORKLOAD_IDENTITY_PROVIDER"]
    file = patient.owner.credentials(patient.folder / "dev.json", patient.owner.job(), email)
    found = patient.wrong(credentials=str(file))
    fixes = {one["fix"] for one in found if one["check"] == "permissions"}
    assert (
        f"gcloud artifacts repositories add-iam-policy-binding services"
        f" --role=roles/artifactregistry.writer --member=serviceAccount:{email}"
        f" --location=us-central1 --project={OPS}"
    ) in fixes
    assert any(f"gcloud projects add-iam-policy-binding {STAGING}" in fix for fix in fixes)
    patient.api("DELETE", f"{base}/{email}")


def test_an_account_that_is_gone(patient: Patient) -> None:
    deployer = patient.variables["DEPLOYER"]
    patient.api("DELETE", f"projects/{STAGING}/serviceAccounts/{deployer}")
    found = {one["check"]: one for one in patient.wrong()}
    assert f"do not exist: {deployer}" in found["accounts"]["found"]
    assert found["accounts"]["fix"] == BOOTSTRAP
    patient.bootstrap_fixes_it()


def test_the_provider(patient: Patient) -> None:
    provider = patient.variables["WORKLOAD_IDENTITY_PROVIDER"]

    def change(**fields: Any) -> Finding:
        patient.api("PATCH", f"{provider}?updateMask={','.join(fields)}", fields)
        [found] = [one for one in patient.wrong() if one["check"] == "provider"]
        assert found["fix"] == BOOTSTRAP
        return found

    condition = patient.api("GET", provider)["attributeCondition"]
    other = condition.replace("'4711'", "'815'")
    assert (
        "lacks assertion.repository_id == '4711' but has assertion.repository_id == '815'"
    ) in change(attributeCondition=other)["found"]
    patient.bootstrap_fixes_it()
    # Spaces make no difference.
    patient.api(
        "PATCH", f"{provider}?updateMask=attributeCondition",
        {"attributeCondition": condition.replace(" && ", "  &&\n ")},
    )  # fmt: skip
    assert patient.wrong() == []
    mapping = {"google.subject": "assertion.sub"}
    assert "attribute mapping is not the one" in change(attributeMapping=mapping)["found"]
    patient.bootstrap_fixes_it()
    patient.api("DELETE", provider)
    [found] = patient.wrong()
    assert found["found"].endswith(f"{provider} is deleted")
    patient.bootstrap_fixes_it()


def test_another_repository_than_the_one_that_was_set_up(patient: Patient) -> None:
    found = {one["check"]: one for one in patient.wrong(GITHUB_REPOSITORY_ID="815")}
    assert "providers/github-815" in found["provider"]["found"]
    assert "push-815@" in found["accounts"]["found"]


def test_a_repository_that_is_named(patient: Patient) -> None:
    words = ("--repository", "acme/app", "--repository-id", "815", "--owner-id", "42")
    found = {one["check"]: one for one in patient.wrong(words=words)}
    assert "providers/github-815" in found["provider"]["found"]


def test_an_unknown_repository(patient: Patient) -> None:
    code, findings = patient.doctor(GITHUB_REPOSITORY="")
    assert code == 0
    [skipped] = [one for one in findings if one["check"] == "access"]
    assert "the repository that delivers is unknown" in skipped["found"]


def test_cloud_builds_one_identity_needs_what_a_build_uses(patient: Patient) -> None:
    code, findings = patient.doctor(words=("--trigger", "cloud-build"))
    assert code == 1
    by = {one["check"]: one for one in findings}
    assert by["provider"]["found"].startswith("not needed")
    assert "build-staging-4711@team-ops" in by["accounts"]["found"]
    assert "--trigger cloud-build" in by["accounts"]["fix"]
    assert by["triggers"]["state"] == "skipped"


def test_a_trigger_that_differs_from_its_file(patient: Patient) -> None:
    patient.set_up("staging", *CLOUD_BUILD)
    assert patient.wrong(words=CLOUD_BUILD) == []
    file = patient.project.folder / "cloudbuild/rollback.yaml"
    before = file.read_text()
    file.write_text(before.replace("timeout: 600s", "timeout: 599s"))
    found = patient.one_wrong("triggers", words=CLOUD_BUILD)
    file.write_text(before)
    differs = "trigger rollback-staging-4711: build is not what the files here say"
    assert found["found"] == differs
    assert found["fix"] == f"{BOOTSTRAP} {' '.join(CLOUD_BUILD)}"


def test_a_custom_role_with_another_permission_and_a_deleted_one(patient: Patient) -> None:
    wider = ["run.services.delete", "run.services.get", "run.services.update"]
    patient.api("PATCH", DEPLOYER, {"includedPermissions": wider})
    found = patient.one_wrong("custom-roles")
    differs = "role shipwayDeployer: includedPermissions is not what the files here say"
    assert found["found"] == differs
    assert found["fix"] == BOOTSTRAP
    patient.bootstrap_fixes_it()
    patient.api("DELETE", DEPLOYER)
    found = patient.one_wrong("custom-roles")
    assert found["found"] == "role shipwayDeployer is deleted"
    patient.bootstrap_fixes_it()


def asked_since(start: int) -> set[str]:
    """Return the permissions that the APIs required since the record had `start` bytes."""
    lines = map(json.loads, Path(os.environ[VARIABLE]).read_bytes()[start:].splitlines())
    return {line["permission"] for line in lines if line["agent"] == "shipway"} - {""}


def test_a_delivery_uses_no_other_permission(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The permissions that the doctor checks are compared with those that a delivery uses."""
    for name, value in IDS.items():
        monkeypatch.setenv(name, value)
    build(patient)
    start = Path(os.environ[VARIABLE]).stat().st_size
    ended = patient.project.ship(
        "deliver", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("DEPLOYER")
    )
    assert ended.returncode == 0, ended.stderr
    case = Case(patient.project.folder, pipelines.load(patient.project.folder, NAME, "staging"))
    case.account = patient.variables["DEPLOYER"]
    needed = {need.permission for need in access.needs_of(case, case.plan())}
    # Impersonating the deployer is checked by the provider and the roles.
    impersonation = {"iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken"}
    asked = asked_since(start) - impersonation
    assert {"run.services.update", "run.revisions.list"} <= asked
    assert asked <= needed


@needs_gh
def test_what_lacks_at_github_fails(patient: Patient, github_com: GitHub) -> None:
    """Each line of it is tested in tests/scripts/test_at_github.py."""
    found = patient.wrong(**github_com.env())
    assert {one["check"] for one in found} == {"environment", "main", "variables"}
    assert found[0]["fix"] == BOOTSTRAP
    assert found[-1]["fix"].startswith("gh variable set DEPLOYER ")


def test_production_needs_to_read_staging(patient: Patient) -> None:
    """Its deployer checks in staging whether a digest has served."""
    deployer = patient.set_up("production")["variables"]["DEPLOYER"]
    patient.owner.provider = patient.variables["WORKLOAD_IDENTITY_PROVIDER"]
    job = patient.owner.job(environment="production")
    file = str(patient.owner.credentials(patient.folder / "job.json", job, deployer))
    assert patient.wrong(env="production", credentials=file) == []
    with patient.without_role(f"projects/{STAGING}", "roles/run.viewer", "POST"):
        found = patient.wrong(env="production", credentials=file)
    assert [one["found"] for one in found] == [
        f"{deployer} lacks {permission} on projects/{STAGING}: checks that a digest has served in"
        " staging"
        for permission in ("run.services.get", "run.revisions.list")
    ]
