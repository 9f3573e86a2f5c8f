"""An empty project, like a new one at Google: APIs are disabled, and resources do not exist."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import service
from tests.emulator.registry_help import Client, code_of
from tests.identity_help import DEPLOYER, PROJECT, RUNTIME, Owner

Document = dict[str, Any]
ALL = [
    f"{name}.googleapis.com"
    for name in (
        "artifactregistry", "cloudresourcemanager", "iam", "iamcredentials", "run", "secretmanager",
    )
]  # fmt: skip


class Bare:
    """A project that was created, with some APIs enabled."""

    def __init__(self, cloud_run: LocalCloudRun, *enabled: str) -> None:
        self.cloud_run = cloud_run
        self.id = f"bare-{uuid.uuid4().hex[:8]}"
        made = cloud_run.local("POST", "projects", {"projectId": self.id, "enabled": [*enabled]})
        self.number = made["projectNumber"]
        self.base = f"/v1/projects/{self.id}"
        self.pools = f"{self.base}/locations/global/workloadIdentityPools"

    @property
    def url(self) -> str:
        return self.cloud_run.url

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        headers = self.cloud_run.secret if path.startswith("/_local/") else {}
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=60)

    def __call__(self, method: str, path: str, body: Any = None) -> Document:
        answer = self.ask(method, path, body)
        assert answer.ok, answer.text
        found: Document = answer.json()
        return found

    def refused(self, method: str, path: str, body: Any = None) -> Document:
        error: Document = self.ask(method, path, body).json()["error"]
        return error

    def done(self, method: str, path: str, body: Any = None) -> Document:
        """Return the response of a long-running operation, which a second request reads."""
        started = self(method, path, body)
        assert "done" not in started
        version = "" if started["name"].startswith("/") else "/v1/"
        ended = self("GET", version + started["name"])
        assert ended["done"] is True
        response: Document = ended["response"]
        return response

    def account(self, name: str) -> str:
        made = self("POST", f"{self.base}/serviceAccounts", {"accountId": name})
        return str(made["email"])


@pytest.fixture
def bare(local_cloud_run: LocalCloudRun) -> Bare:
    return Bare(local_cloud_run, *ALL)


@pytest.fixture
def faulty(local_cloud_run: LocalCloudRun) -> Iterator[Any]:
    """Yield a function that starts faults, which end with the test."""
    begun: list[str] = []

    def begin(name: str, **settings: Any) -> None:
        local_cloud_run.local("POST", "faults", {"name": name, **settings})
        begun.append(name)

    yield begin
    for name in begun:
        local_cloud_run.local("DELETE", f"faults/{name}")


# Service Usage


def test_the_error_of_a_disabled_api_has_the_link_to_enable_it(
    local_cloud_run: LocalCloudRun,
) -> None:
    bare = Bare(local_cloud_run)
    for api, path in (
        ("run", f"{bare.base}/locations/us-central1/services"),
        ("run", f"/apis/serving.knative.dev/v1/namespaces/{bare.id}/services"),
        ("artifactregistry", f"{bare.base}/locations/us-central1/repositories"),
        ("iam", f"{bare.base}/serviceAccounts"),
        ("secretmanager", f"{bare.base}/secrets"),
        ("cloudresourcemanager", bare.base),
        ("monitoring", f"/v3/projects/{bare.id}/timeSeries"),
    ):
        error = bare.refused("GET", path)
        assert error["status"] == "PERMISSION_DENIED", path
        assert f"has not been used in project {bare.number} before" in error["message"]
        [info] = [d for d in error["details"] if d["@type"].endswith("ErrorInfo")]
        assert info["reason"] == "SERVICE_DISABLED"
        assert info["metadata"]["service"] == f"{api}.googleapis.com"
        assert info["metadata"]["consumer"] == f"projects/{bare.number}"
        assert api in info["metadata"]["activationUrl"]
    pushed = Client(bare.url, f"{bare.id}/app/x")("POST", "/blobs/uploads/")
    assert (pushed.status_code, code_of(pushed)) == (403, "DENIED")
    assert "Artifact Registry API has not been used" in pushed.text
    # Another project than the one in the path may pay.
    payer = Bare(bare.cloud_run, "cloudresourcemanager.googleapis.com")
    headers = {"X-Goog-User-Project": payer.id}
    assert requests.get(bare.url + bare.base, headers=headers, timeout=60).ok


def test_operations_enable_apis(local_cloud_run: LocalCloudRun) -> None:
    bare = Bare(local_cloud_run)
    services = f"{bare.base}/services"
    run = f"{services}/run.googleapis.com"
    assert bare("GET", run)["state"] == "DISABLED"
    assert bare("GET", f"{bare.base}/services?filter=state:ENABLED")["services"][0]["name"] == (
        f"projects/{bare.number}/services/serviceusage.googleapis.com"
    )
    assert bare.done("POST", f"{run}:enable", {})["service"]["state"] == "ENABLED"
    again = bare("POST", f"{run}:enable", {})
    assert (again["name"], again["done"]) == ("operations/noop.DONE_OPERATION", True)
    both = ["iam.googleapis.com", "run.googleapis.com"]
    answer = bare.done("POST", f"{services}:batchEnable", {"serviceIds": both})
    assert [one["config"]["name"] for one in answer["services"]] == both
    names = "&".join(f"names=projects/{bare.id}/services/{name}" for name in both)
    asked = bare("GET", f"{services}:batchGet?{names}")["services"]
    assert [one["state"] for one in asked] == ["ENABLED", "ENABLED"]
    assert bare.done("POST", f"{run}:disable", {})["service"]["state"] == "DISABLED"
    error = bare.refused("POST", f"{services}/rum.googleapis.com:enable", {})
    assert "Not found or permission denied for service(s): rum.googleapis.com" in error["message"]


def test_lists_have_pages(bare: Bare) -> None:
    found: list[str] = []
    token = ""
    while True:
        page = bare(
            "GET", f"{bare.base}/services?filter=state:ENABLED&pageSize=3&pageToken={token}"
        )
        found += [one["config"]["name"] for one in page["services"]]
        if not (token := page.get("nextPageToken", "")):
            break
    assert found == sorted([*ALL, "serviceusage.googleapis.com"])


def test_a_project_that_was_not_created_has_every_api(local_cloud_run: LocalCloudRun) -> None:
    url = f"{local_cloud_run.url}/v1/projects/acme/services?filter=state:DISABLED"
    assert requests.get(url, timeout=60).json() == {}


# Resource Manager


def test_projects_and_their_policies_in_both_versions(bare: Bare) -> None:
    first, third = (
        bare("GET", f"/v1/projects/{bare.number}"),
        bare("GET", f"/v3/projects/{bare.id}"),
    )
    assert first["projectId"] == third["projectId"] == bare.id
    assert third["name"] == f"projects/{bare.number}"
    member = f"serviceAccount:{bare.account('runtime')}"
    policy = bare("POST", f"/v3/projects/{bare.id}:getIamPolicy", {})
    policy["bindings"].append({"role": "roles/logging.viewer", "members": [member]})
    changed = bare("POST", f"{bare.base}:setIamPolicy", {"policy": policy})
    assert changed == bare("POST", f"/v3/projects/{bare.number}:getIamPolicy", {})
    lost = bare.refused("POST", f"{bare.base}:setIamPolicy", {"policy": policy})
    assert (lost["code"], lost["status"]) == (409, "ABORTED")


def test_a_policy_takes_existing_members_and_roles_of_the_resource(bare: Bare) -> None:
    email = bare.account("runtime")
    account = f"{bare.base}/serviceAccounts/{email}"

    def refused(path: str, role: str, member: str) -> str:
        bindings = [{"role": role, "members": [member]}]
        error = bare.refused("POST", f"{path}:setIamPolicy", {"policy": {"bindings": bindings}})
        assert error["status"] == "INVALID_ARGUMENT"
        return str(error["message"])

    nobody = f"nobody@{bare.id}.iam.gserviceaccount.com"
    refusal = refused(bare.base, "roles/run.viewer", f"serviceAccount:{nobody}")
    assert refusal == f"Service account {nobody} does not exist."
    refusal = refused(account, "roles/run.viewer", "user:a@example.com")
    assert refusal == "Role roles/run.viewer is not supported for this resource."
    pool = f"projects/{bare.number}/locations/global/workloadIdentityPools/nothing"
    refusal = refused(
        account, "roles/iam.workloadIdentityUser", f"principalSet://iam.googleapis.com/{pool}/*"
    )
    assert refusal.startswith(f"Identity Pool does not exist ({pool})")
    assert "Invalid value 'me'" in refused(bare.base, "roles/run.viewer", "me")


def test_unknown_permissions_cannot_be_tested(bare: Bare) -> None:
    account = f"{bare.base}/serviceAccounts/{bare.account('runtime')}"
    for path, permission in (
        (bare.base, "run.services.fly"),
        (account, "run.services.get"),
        (f"{bare.base}/secrets/key", "resourcemanager.projects.get"),
        (f"{bare.base}/locations/us-central1/services/x", "secretmanager.versions.access"),
    ):
        error = bare.refused("POST", f"{path}:testIamPermissions", {"permissions": [permission]})
        assert error["message"] == f"Permission {permission} is not valid for this resource."


# IAM


def test_service_accounts(bare: Bare) -> None:
    accounts = f"{bare.base}/serviceAccounts"
    body = {"accountId": "deployer", "serviceAccount": {"displayName": "Deploys"}}
    made = bare("POST", accounts, body)
    email = f"deployer@{bare.id}.iam.gserviceaccount.com"
    assert (made["email"], made["displayName"]) == (email, "Deploys")
    assert made["name"] == f"projects/{bare.id}/serviceAccounts/{email}"
    again = bare.refused("POST", accounts, body)
    assert (again["code"], again["message"]) == (
        409,
        f"Service account deployer already exists within project projects/{bare.id}.",
    )
    assert bare.refused("POST", accounts, {"accountId": "x"})["status"] == "INVALID_ARGUMENT"
    assert bare("GET", f"/v1/projects/-/serviceAccounts/{email}") == made
    assert bare("GET", accounts)["accounts"] == [made]
    mine = {"policy": {"bindings": [{"role": "roles/iam.serviceAccountUser",
                                     "members": ["user:a@example.com"]}]}}  # fmt: skip
    bare("POST", f"{accounts}/{email}:setIamPolicy", mine)
    bare("DELETE", f"{accounts}/{email}")
    for method, verb in (("GET", ""), ("POST", ":getIamPolicy"), ("POST", ":setIamPolicy")):
        gone = bare.refused(method, f"{accounts}/{email}{verb}", mine)
        assert gone["message"] == "Unknown service account"
    token = f"{accounts}/{email}:generateAccessToken"
    assert "Gaia id not found" in bare.refused("POST", token, {"scope": ["x"]})["message"]
    bare("POST", accounts, body)
    assert "bindings" not in bare("POST", f"{accounts}/{email}:getIamPolicy"), "a new one"


def test_custom_roles(bare: Bare) -> None:
    roles, role = f"{bare.base}/roles", {"title": "Deploys", "stage": "GA"}
    given = {**role, "includedPermissions": ["run.services.get", "run.services.update"]}
    made = bare("POST", roles, {"roleId": "deployer", "role": given})
    name = f"projects/{bare.id}/roles/deployer"
    assert {**made, "etag": ""} == {**given, "name": name, "etag": ""}
    assert bare("GET", f"{roles}/deployer") == made
    again = bare.refused("POST", roles, {"roleId": "deployer", "role": given})
    assert again["message"] == f"A role named deployer in projects/{bare.id} already exists."
    assert bare.refused("POST", roles, {"roleId": "x"})["status"] == "INVALID_ARGUMENT"
    for unknown in ("run.services.fly", [1]):
        body = {"includedPermissions": [unknown]}
        refused = bare.refused("PATCH", f"{roles}/deployer", body)
        assert refused["message"] == f"Permission {unknown} is not valid."
    one = {"includedPermissions": ["run.services.get"], "title": "no"}
    changed = bare("PATCH", f"{roles}/deployer?updateMask=included_permissions", one)
    assert (changed["includedPermissions"], changed["title"]) == (["run.services.get"], "Deploys")
    listed = {key: value for key, value in changed.items() if key != "includedPermissions"}
    assert bare("GET", roles) == {"roles": [listed]}
    assert bare("GET", f"{roles}?view=FULL") == {"roles": [changed]}
    assert bare("DELETE", f"{roles}/deployer")["deleted"] is True
    assert bare("GET", roles) == {}
    gone = bare.refused("POST", roles, {"roleId": "deployer", "role": given})
    assert gone["message"].endswith("(deployer) which has been marked for deletion.")
    assert "deleted" not in bare("POST", f"{roles}/deployer:undelete", {})
    missing = bare.refused("GET", f"{roles}/none")
    assert (missing["status"], missing["code"]) == ("NOT_FOUND", 404)


def test_a_policy_names_custom_roles_of_its_own_project(bare: Bare) -> None:
    given = {"includedPermissions": ["run.services.get"]}
    bare("POST", f"{bare.base}/roles", {"roleId": "reader", "role": given})

    def policy(role: str) -> dict[str, Any]:
        return {"policy": {"bindings": [{"role": role, "members": ["user:a@example.com"]}]}}

    bare("POST", f"{bare.base}:setIamPolicy", policy(f"projects/{bare.id}/roles/reader"))
    for role in (f"projects/{bare.id}/roles/none", "projects/other-project/roles/reader"):
        refused = bare.refused("POST", f"{bare.base}:setIamPolicy", policy(role))
        assert refused["message"] == f"Role ({role}) does not exist in the resource's hierarchy."


PROVIDER = {
    "attributeMapping": {"google.subject": "assertion.sub"},
    "attributeCondition": "assertion.repository_id == '1'",
    "oidc": {"issuerUri": "https://token.actions.githubusercontent.com"},
}


def test_pools_and_providers(bare: Bare) -> None:
    make = f"{bare.pools}?workloadIdentityPoolId=github"
    pool = f"projects/{bare.number}/locations/global/workloadIdentityPools/github"
    assert bare.done("POST", make, {"displayName": "GitHub"})["name"] == pool
    providers = f"{bare.pools}/github/providers"
    made = f"{providers}?workloadIdentityPoolProviderId=acme-app"
    assert bare.done("POST", made, PROVIDER)["state"] == "ACTIVE"
    change = {"attributeCondition": "assertion.repository_id == '2'", "displayName": "no"}
    bare.done("PATCH", f"{providers}/acme-app?updateMask=attributeCondition", change)
    found = bare("GET", f"{providers}/acme-app")
    assert found == {
        **PROVIDER,
        "name": f"{pool}/providers/acme-app",
        "state": "ACTIVE",
        "attributeCondition": "assertion.repository_id == '2'",
    }
    open_to_all = {"attributeCondition": "true"}
    error = bare.refused(
        "PATCH", f"{providers}/acme-app?updateMask=attributeCondition", open_to_all
    )
    assert "must reference one of the provider's claims" in error["message"]
    assert bare("GET", providers) == {"workloadIdentityPoolProviders": [found]}
    bare.done("DELETE", f"{providers}/acme-app")
    assert bare("GET", providers) == {}
    assert bare("GET", f"{providers}/acme-app")["state"] == "DELETED"
    bare.done("POST", f"{providers}/acme-app:undelete", {})
    assert bare("GET", f"{providers}/acme-app") == found


def test_a_deleted_pool_keeps_its_name(bare: Bare) -> None:
    make = f"{bare.pools}?workloadIdentityPoolId=github"
    bare.done("POST", make, {})
    bare.done("DELETE", f"{bare.pools}/github")
    assert bare.refused("POST", make, {})["status"] == "ALREADY_EXISTS"
    assert bare("GET", bare.pools) == {}
    [shown] = bare("GET", f"{bare.pools}?showDeleted=true")["workloadIdentityPools"]
    assert shown["state"] == "DELETED"
    assert shown["expireTime"] > shown["name"][:0]
    bare.done("POST", f"{bare.pools}/github:undelete", {})
    assert bare("GET", f"{bare.pools}/github")["state"] == "ACTIVE"
    again = bare.refused("POST", f"{bare.pools}/github:undelete", {})
    assert again["status"] == "FAILED_PRECONDITION"


# Artifact Registry


@pytest.fixture
def repositories(bare: Bare) -> str:
    return f"{bare.base}/locations/us-central1/repositories"


def test_a_push_needs_an_existing_repository(bare: Bare, repositories: str) -> None:
    client = Client(bare.url, f"{bare.id}/services/app")
    refused = client("POST", "/blobs/uploads/")
    assert (refused.status_code, code_of(refused)) == (404, "NAME_UNKNOWN")
    assert refused.json()["errors"][0]["message"] == 'Repository "services" not found'
    assert bare.refused("GET", f"{repositories}/services")["status"] == "NOT_FOUND"
    asked = {"permissions": ["artifactregistry.repositories.uploadArtifacts"]}
    assert bare("POST", f"{repositories}/services:testIamPermissions", asked) == {}
    made = bare.done("POST", f"{repositories}?repositoryId=services", {"format": "DOCKER"})
    client.image("v1")
    assert bare("POST", f"{repositories}/services:testIamPermissions", asked) == asked
    found = bare("GET", f"{repositories}/services")
    assert found["registryUri"] == f"us-central1-docker.pkg.dev/{bare.id}/services"
    assert made.items() - {("@type", made["@type"])} <= found.items()
    again = bare.refused("POST", f"{repositories}?repositoryId=services", {"format": "DOCKER"})
    assert (again["code"], again["message"]) == (409, "the repository already exists")
    bare.done("DELETE", f"{repositories}/services")
    assert bare("GET", repositories) == {}
    bare.done("POST", f"{repositories}?repositoryId=services", {"format": "DOCKER"})
    assert client("GET", "/tags/list").status_code == 404, "its images went with it"


def test_an_immutable_tag_cannot_be_moved(bare: Bare, repositories: str) -> None:
    body = {"format": "DOCKER", "dockerConfig": {"immutableTags": True}}
    bare.done("POST", f"{repositories}?repositoryId=services", body)
    client = Client(bare.url, f"{bare.id}/services/app")
    first = client.image("v1")["digest"]
    assert client.image("v1")["digest"] == first, "the same image may be pushed again"
    other = client.image(None, "linux/arm64")["digest"]
    manifest = client("GET", f"/manifests/{other}")
    moved = client(
        "PUT", "/manifests/v1", data=manifest.content,
        headers={"Content-Type": manifest.headers["Content-Type"]},
    )  # fmt: skip
    assert (moved.status_code, code_of(moved)) == (400, "MANIFEST_INVALID")
    assert "cannot update tag v1. The repository has enabled tag immutability" in moved.text
    assert client("DELETE", "/manifests/v1").status_code == 400
    package = f"{repositories}/services/packages/app"
    assert bare.refused("DELETE", f"{package}/tags/v1")["status"] == "FAILED_PRECONDITION"
    assert client("HEAD", "/manifests/v1").headers["Docker-Content-Digest"] == first
    loose = {"dockerConfig": {"immutableTags": False}}
    bare("PATCH", f"{repositories}/services?updateMask=dockerConfig.immutableTags", loose)
    client.manifest(manifest.json(), "v1")


def test_clean_up_policies_are_stored_as_they_are_set(bare: Bare, repositories: str) -> None:
    bare.done("POST", f"{repositories}?repositoryId=services", {"format": "DOCKER"})
    policies = {
        "keep": {"id": "keep", "action": "KEEP", "mostRecentVersions": {"keepCount": 20}},
        "old": {"id": "old", "action": "DELETE",
                "condition": {"tagState": "UNTAGGED", "olderThan": "2592000s"}},
    }  # fmt: skip
    change = f"{repositories}/services?updateMask=cleanupPolicies"
    assert bare("PATCH", change, {"cleanupPolicies": policies})["cleanupPolicies"] == policies
    policies["keep"]["action"] = "DELETE"
    refused = bare.refused("PATCH", change, {"cleanupPolicies": policies})
    assert refused["status"] == "INVALID_ARGUMENT"


# Secret Manager


def test_a_secrets_policy_is_deleted_with_it(bare: Bare) -> None:
    secrets = f"{bare.base}/secrets"
    body = {"replication": {"automatic": {}}}
    member = f"serviceAccount:{bare.account('runtime')}"
    policy = {"policy": {"bindings": [{"role": "roles/secretmanager.secretAccessor",
                                       "members": [member]}]}}  # fmt: skip
    assert bare.refused("GET", f"{secrets}/key:getIamPolicy")["status"] == "NOT_FOUND"
    bare("POST", f"{secrets}?secretId=key", body)
    bare("POST", f"{secrets}/key:setIamPolicy", policy)
    bare("DELETE", f"{secrets}/key")
    bare("POST", f"{secrets}?secretId=key", body)
    assert "bindings" not in bare("GET", f"{secrets}/key:getIamPolicy")
    asked = {"permissions": ["secretmanager.versions.access"]}
    assert bare("POST", f"{secrets}/key:testIamPermissions", asked) == asked
    assert bare("POST", f"{secrets}/none:testIamPermissions", asked) == {}


def test_versions_are_disabled_and_destroyed(bare: Bare) -> None:
    secret = f"{bare.base}/secrets/key"
    bare("POST", f"{bare.base}/secrets?secretId=key", {"replication": {"automatic": {}}})
    labeled = bare("PATCH", f"{secret}?updateMask=labels", {"labels": {"by": "ship"}})
    assert bare("GET", secret) == labeled
    bare("POST", f"{secret}:addVersion", {"payload": {"data": "c2VjcmV0"}})
    one = f"{secret}/versions/1"
    assert bare("POST", f"{one}:disable", {})["state"] == "DISABLED"
    refused = bare.refused("GET", f"{one}:access")
    assert refused["status"] == "FAILED_PRECONDITION"
    assert "is in DISABLED state" in refused["message"]
    assert bare("POST", f"{one}:enable", {})["state"] == "ENABLED"
    assert bare("GET", f"{one}:access")["payload"]["data"] == "c2VjcmV0"
    assert bare("POST", f"{one}:destroy", {})["state"] == "DESTROYED"
    assert bare.refused("POST", f"{one}:enable", {})["status"] == "FAILED_PRECONDITION"


# Cloud Build


def test_triggers(local_cloud_run: LocalCloudRun) -> None:
    bare = Bare(local_cloud_run, "cloudbuild.googleapis.com")
    triggers = f"{bare.base}/locations/us-central1/triggers"
    body = {
        "name": "deliver",
        "filename": "cloudbuild/deliver.yaml",
        "github": {"owner": "acme", "name": "app", "push": {"branch": "^main$"}},
        "substitutions": {"_ENVIRONMENT": "staging"},
        "serviceAccount": f"projects/{bare.id}/serviceAccounts/x@y.iam.gserviceaccount.com",
    }
    made = bare("POST", triggers, body)
    assert body.items() <= made.items()
    assert made["resourceName"].endswith(f"/triggers/{made['id']}")
    assert bare.refused("POST", triggers, body)["status"] == "ALREADY_EXISTS"
    nobody = {**body, "name": "other", "serviceAccount": ""}
    assert "service account must be" in bare.refused("POST", triggers, nobody)["message"]
    change = f"{triggers}/{made['id']}?updateMask=substitutions"
    bare("PATCH", change, {"substitutions": {"_ENVIRONMENT": "production"}, "name": "no"})
    found = bare("GET", f"{triggers}/deliver")
    assert found == {**made, "substitutions": {"_ENVIRONMENT": "production"}}
    assert bare("GET", triggers) == {"triggers": [found]}
    bare("DELETE", f"{triggers}/{made['id']}")
    assert bare("GET", triggers) == {}


# Binary Authorization


def test_the_policy_of_binary_authorization(local_cloud_run: LocalCloudRun) -> None:
    bare = Bare(local_cloud_run, "binaryauthorization.googleapis.com")
    url = f"{bare.base}/policy"
    first = bare("GET", url)
    assert first["defaultAdmissionRule"]["evaluationMode"] == "ALWAYS_ALLOW"
    denies = {"evaluationMode": "ALWAYS_DENY", "enforcementMode": "DRYRUN_AUDIT_LOG_ONLY"}
    made = bare("PUT", url, {**first, "defaultAdmissionRule": denies})
    assert bare("GET", url) == made
    assert made["defaultAdmissionRule"] == denies
    lost = bare.refused("PUT", url, first)
    assert (lost["code"], lost["status"]) == (409, "ABORTED")
    for wrong in ({}, {"defaultAdmissionRule": {"evaluationMode": "NEVER"}}, {**first, "x": 1}):
        assert bare.refused("PUT", url, wrong)["status"] == "INVALID_ARGUMENT"


# Faults


def test_quota(bare: Bare, faulty: Any) -> None:
    faulty("quota-exceeded")
    error = bare.refused("GET", f"{bare.base}/locations/us-central1/services")
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert "of service 'run.googleapis.com' for consumer" in error["message"]
    assert bare("GET", bare.base), "another API's quota is its own"


def test_an_organization_forbids_all_users(bare: Bare, faulty: Any) -> None:
    policy = {"policy": {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]}}
    faulty("org-policy-domains")
    error = bare.refused("POST", f"{bare.base}:setIamPolicy", policy)
    assert error["status"] == "FAILED_PRECONDITION"
    assert "do not belong to a permitted customer" in error["message"]
    [violation] = error["details"][0]["violations"]
    assert violation["type"] == "constraints/iam.allowedPolicyMemberDomains"


def test_no_billing_account(local_cloud_run: LocalCloudRun, faulty: Any) -> None:
    bare = Bare(local_cloud_run)
    faulty("no-billing")
    error = bare.refused("POST", f"{bare.base}/services/run.googleapis.com:enable", {})
    assert error["status"] == "FAILED_PRECONDITION"
    assert f"Billing account for project '{bare.number}' is not found" in error["message"]
    assert bare("GET", f"{bare.base}/services/run.googleapis.com")["state"] == "DISABLED"


def test_the_faults_of_the_token_exchange_and_the_clock(bare: Bare, faulty: Any) -> None:
    faulty("token-exchange")
    refused = Client(bare.url, "acme/x/y")("POST", "/blobs/uploads/")
    assert (refused.status_code, code_of(refused)) == (403, "DENIED")
    assert "Token exchange failed for project 'acme'" in refused.text
    faulty("clock-skew", seconds=900)
    before = int(time.time())
    date = parsedate_to_datetime(bare.ask("GET", bare.base).headers["Date"])
    assert before + 899 <= date.timestamp() <= time.time() + 901
    assert bare.refused("POST", "/_local/faults", {"name": "rain"})["status"] == "INVALID_ARGUMENT"


def test_acknowledged_writes_survive_a_kill(fresh_cloud_run: LocalCloudRun) -> None:
    bare = Bare(fresh_cloud_run, *ALL)
    email = bare.account("deployer")
    bare.done("POST", f"{bare.pools}?workloadIdentityPoolId=github", {})
    where = f"{bare.base}/locations/us-central1/repositories"
    started = bare("POST", f"{where}?repositoryId=services", {"format": "DOCKER"})
    bare("POST", f"{bare.base}/secrets?secretId=key", {"replication": {"automatic": {}}})
    fresh_cloud_run.stop(signal.SIGKILL)
    fresh_cloud_run.start()
    assert bare("GET", f"/v1/{started['name']}")["done"] is True
    assert bare("GET", f"{bare.base}/serviceAccounts/{email}")
    assert bare("GET", f"{bare.pools}/github")["state"] == "ACTIVE"
    assert bare("GET", f"{where}/services")
    assert bare("GET", f"{bare.base}/secrets/key")
    assert bare.refused("GET", f"/v3/projects/{bare.id}/timeSeries")["status"] == (
        "PERMISSION_DENIED"
    )


def test_an_empty_project_under_enforced_iam(tmp_path: Path) -> None:
    """An account has to exist to be impersonated; GitHub's own issuer is the local one."""
    cloud_run = LocalCloudRun(tmp_path / "state", "--iam", "enforce")
    cloud_run.local("POST", "projects", {"projectId": PROJECT, "enabled": ALL})
    owner = Owner(cloud_run)
    owner.trust_github(oidc={"issuerUri": "https://token.actions.githubusercontent.com"})

    def exchange(**claims: str) -> requests.Response:
        body = {
            "audience": f"//iam.googleapis.com/{owner.provider}",
            "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
            "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "subjectToken": owner.github_token(**claims),
        }
        return requests.post(f"{cloud_run.url}/v1/token", json=body, timeout=60)

    assert "attribute condition" in exchange(repository_id="1").json()["error_description"]
    headers = {"Authorization": f"Bearer {exchange().json()['access_token']}"}
    act = f"{cloud_run.url}/v1/projects/-/serviceAccounts/{DEPLOYER}:generateAccessToken"
    missing = requests.post(act, json={"scope": ["x"]}, headers=headers, timeout=60)
    assert missing.status_code == 403
    owner.post(f"{cloud_run.url}/v1/projects/{PROJECT}/serviceAccounts", {"accountId": "deployer"})
    owner.let_github_impersonate(DEPLOYER)
    assert requests.post(act, json={"scope": ["x"]}, headers=headers, timeout=60).ok
    # The account of a token, for everyone who has the token.
    info = f"{cloud_run.url}/tokeninfo"
    told = requests.post(
        info, data={"access_token": owner.token_of("user:a@b.example")}, timeout=60
    )
    assert told.json()["email"] == "user:a@b.example".partition(":")[2]
    assert requests.post(info, data={"access_token": "guess"}, timeout=60).status_code == 400
    # A service cannot run as an account that does not exist.
    services = f"{cloud_run.url}/v1/projects/{PROJECT}/locations/us-central1/services"
    document = service("app", "us-central1-docker.pkg.dev/x/y/z")
    document["spec"]["template"]["spec"]["serviceAccountName"] = RUNTIME
    refused = owner.http.post(services, json=document)
    assert refused.status_code == 403
    assert f"denied on service account {RUNTIME} (or it may not exist)" in refused.text
    owner.http.close()
    cloud_run.stop()
