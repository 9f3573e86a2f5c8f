"""gcloud sets up an empty project on the local Cloud Run with the commands of Google's docs."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_gcloud import Gcloud
from tests.conftest import LocalCloudRun

pytestmark = pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="left out: gcloud is not installed"
)

LOCATION = ("--location", "us-central1")
GLOBAL = ("--location", "global")


class Setup(Gcloud):
    """gcloud and the project that it sets up."""

    def __init__(self, cloud_run: LocalCloudRun, folder: Path, *enabled: str) -> None:
        self.project = f"bare-{uuid.uuid4().hex[:8]}"
        super().__init__(cloud_run.url, folder, self.project)
        for api in ("IAM", "ARTIFACTREGISTRY", "BINARYAUTHORIZATION", "CLOUDBUILD"):
            override = f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}"
            self.environment[override] = self.environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"]
        body = {"projectId": self.project, "enabled": [f"{one}.googleapis.com" for one in enabled]}
        self.number = cloud_run.local("POST", "projects", body)["projectNumber"]

    def done(self, *arguments: str) -> str:
        ended = self.type(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def read(self, *arguments: str) -> Any:
        return json.loads(self.done(*arguments, "--format", "json"))

    def fails(self, *arguments: str) -> str:
        ended = self.type(*arguments)
        assert ended.returncode == 1, ended.stdout
        return ended.stderr

    def account(self, name: str) -> str:
        self.done("iam", "service-accounts", "create", name)
        return f"{name}@{self.project}.iam.gserviceaccount.com"


def test_apis(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    gcloud = Setup(local_cloud_run, tmp_path / "gcloud")
    make = ("artifacts", "repositories", "create", "x", "--repository-format=docker", *LOCATION)
    said = gcloud.fails(*make)
    assert "Artifact Registry API has not been used in project" in said
    assert "reason: SERVICE_DISABLED" in said
    gcloud.done("services", "enable", "run.googleapis.com", "artifactregistry.googleapis.com")
    gcloud.done("services", "enable", "iam.googleapis.com")
    gcloud.done("services", "disable", "run.googleapis.com")
    listed = gcloud.read("services", "list", "--enabled")
    assert [one["config"]["name"] for one in listed] == [
        "artifactregistry.googleapis.com", "iam.googleapis.com", "serviceusage.googleapis.com",
    ]  # fmt: skip
    assert "Not found or permission denied" in gcloud.fails(
        "services", "enable", "rum.googleapis.com"
    )


def test_repositories(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    gcloud = Setup(local_cloud_run, tmp_path / "gcloud", "artifactregistry", "iam")
    repositories = ("artifacts", "repositories")
    gcloud.done(
        *(*repositories, "create", "services", *LOCATION),
        *("--repository-format=docker", "--immutable-tags"),
    )
    policies = tmp_path / "policies.json"
    policies.write_text(json.dumps([
        {"name": "keep", "action": {"type": "Keep"}, "mostRecentVersions": {"keepCount": 20}},
        {"name": "old", "action": {"type": "Delete"},
         "condition": {"tagState": "untagged", "olderThan": "30d"}},
    ]))  # fmt: skip
    gcloud.done(
        *(*repositories, "set-cleanup-policies", "services", *LOCATION),
        *("--policy", str(policies), "--no-dry-run"),
    )
    found = gcloud.read(*repositories, "describe", "services", *LOCATION)
    assert found["dockerConfig"] == {"immutableTags": True}
    assert found["cleanupPolicies"]["old"]["condition"]["olderThan"] == "2592000s"
    pusher = f"serviceAccount:{gcloud.account('pusher')}"
    bind = (*repositories, "add-iam-policy-binding", "services", *LOCATION, "--member", pusher)
    gcloud.done(*bind, "--role", "roles/artifactregistry.writer")
    policy = gcloud.read(*repositories, "get-iam-policy", "services", *LOCATION)
    assert policy["bindings"] == [{"role": "roles/artifactregistry.writer", "members": [pusher]}]
    gcloud.done(*repositories, "delete", "services", *LOCATION)
    assert gcloud.read(*repositories, "list", *LOCATION) == []


def test_federation(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    gcloud = Setup(local_cloud_run, tmp_path / "gcloud", "iam")
    pools = ("iam", "workload-identity-pools")
    gcloud.done(*pools, "create", "github", *GLOBAL, "--display-name", "GitHub")
    provider = ("acme-app", "--workload-identity-pool", "github", *GLOBAL)
    gcloud.done(
        *(*pools, "providers", "create-oidc", *provider),
        *("--issuer-uri", "https://token.actions.githubusercontent.com"),
        *("--attribute-mapping", "google.subject=assertion.sub,"
          "attribute.repository_id=assertion.repository_id"),
        *("--attribute-condition", "assertion.repository_id == '1'"),
    )  # fmt: skip
    gcloud.done(
        *(*pools, "providers", "update-oidc", *provider),
        *("--attribute-condition", "assertion.repository_id == '2'"),
    )
    found = gcloud.read(*pools, "providers", "describe", *provider)
    assert found["attributeCondition"] == "assertion.repository_id == '2'"
    assert found["attributeMapping"]["attribute.repository_id"] == "assertion.repository_id"
    deployer = gcloud.account("deployer")
    pool = f"projects/{gcloud.number}/locations/global/workloadIdentityPools/github"
    bind = ("iam", "service-accounts", "add-iam-policy-binding", deployer)
    role = ("--role", "roles/iam.workloadIdentityUser")
    member = f"principalSet://iam.googleapis.com/{pool}/attribute.repository_id/2"
    gcloud.done(*bind, *role, "--member", member)
    gone = member.replace("/github/", "/gitlab/")
    assert "Identity Pool does not exist" in gcloud.fails(*bind, *role, "--member", gone)
    gcloud.done(*pools, "delete", "github", *GLOBAL)
    assert "ALREADY_EXISTS" in gcloud.fails(*pools, "create", "github", *GLOBAL)
    gcloud.done(*pools, "undelete", "github", *GLOBAL)
    [listed] = gcloud.read(*pools, "list", *GLOBAL)
    assert listed["state"] == "ACTIVE"


def test_accounts_secrets_and_the_projects_policy(
    local_cloud_run: LocalCloudRun, tmp_path: Path
) -> None:
    apis = ("iam", "secretmanager", "cloudresourcemanager")
    gcloud = Setup(local_cloud_run, tmp_path / "gcloud", *apis)
    runtime = gcloud.account("runtime")
    again = gcloud.fails("iam", "service-accounts", "create", "runtime")
    assert f"already exists within project projects/{gcloud.project}" in again
    member = ("--member", f"serviceAccount:{runtime}")
    gcloud.done("secrets", "create", "key", "--replication-policy", "automatic")
    accessor = ("--role", "roles/secretmanager.secretAccessor")
    gcloud.done("secrets", "add-iam-policy-binding", "key", *member, *accessor)
    assert gcloud.read("secrets", "get-iam-policy", "key")["bindings"][0]["members"] == [member[1]]
    on_project = ("projects", "add-iam-policy-binding", gcloud.project, "--condition", "None")
    viewer = ("--role", "roles/logging.viewer")
    bindings = json.loads(gcloud.done(*on_project, *member, *viewer, "--format", "json"))
    assert {"role": viewer[1], "members": [member[1]]} in bindings["bindings"]
    missing = member[1].replace("runtime", "missing")
    assert "does not exist." in gcloud.fails(*on_project, "--member", missing, *viewer)
    gcloud.done("iam", "service-accounts", "delete", runtime)
    assert "Unknown service account" in gcloud.fails("iam", "service-accounts", "describe", runtime)


def test_custom_roles(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    gcloud = Setup(local_cloud_run, tmp_path / "gcloud", "iam")

    def done(verb: str, *words: str) -> Any:
        words = (verb, "deployer", *words, "--project", gcloud.project, "--quiet")
        return json.loads(gcloud.done("iam", "roles", *words, "--format", "json"))

    given = ["run.services.get", "run.services.update"]
    made = done("create", "--permissions", ",".join(given), "--stage", "GA")
    assert (made["includedPermissions"], made["stage"]) == (given, "GA")
    assert done("update", "--permissions", given[0])["includedPermissions"] == given[:1]
    assert done("delete")["deleted"] is True
    done("undelete")
    found = done("describe")
    assert found["name"] == f"projects/{gcloud.project}/roles/deployer"
    assert found["includedPermissions"] == given[:1]


def test_binary_authorization(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    gcloud = Setup(local_cloud_run, tmp_path / "gcloud", "binaryauthorization")
    rule = {"evaluationMode": "ALWAYS_DENY", "enforcementMode": "ENFORCED_BLOCK_AND_AUDIT_LOG"}
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"defaultAdmissionRule": rule}))
    policy = ("container", "binauthz", "policy")
    gcloud.done(*policy, "import", str(file), "--quiet")
    assert gcloud.read(*policy, "export")["defaultAdmissionRule"] == rule


def test_triggers(local_cloud_run: LocalCloudRun, tmp_path: Path) -> None:
    gcloud = Setup(local_cloud_run, tmp_path / "gcloud", "iam", "cloudbuild")
    account = gcloud.account("builder")
    triggers = ("builds", "triggers")
    region = ("--region", "us-central1")
    gcloud.done(
        *(*triggers, "create", "github", *region, "--name", "deliver"),
        *("--repo-owner", "acme", "--repo-name", "app", "--branch-pattern", "^main$"),
        *("--build-config", "cloudbuild/deliver.yaml", "--substitutions", "_ENVIRONMENT=staging"),
        *("--service-account", f"projects/{gcloud.project}/serviceAccounts/{account}"),
    )
    [found] = gcloud.read(*triggers, "list", *region)
    assert found["filename"] == "cloudbuild/deliver.yaml"
    assert found["github"]["push"] == {"branch": "^main$"}
    gcloud.done(*triggers, "delete", "deliver", *region)
    assert gcloud.read(*triggers, "list", *region) == []
