"""Enforced IAM: each request needs the permission that Google documents for it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator import routes
from emulator.identity.roles import ROLES
from emulator.permissions import Asks, On
from emulator.server import Emulator
from tests.clients.test_skopeo import write_layout
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, service
from tests.identity_help import DEPLOYER, PROJECT, RUNTIME, Owner, account, project, repository
from tests.identity_help import service as service_resource

USER = "user:dev@example.com"
BASE = f"projects/{PROJECT}/locations/us-central1"
KNATIVE = f"apis/serving.knative.dev/v1/namespaces/{PROJECT}"


@pytest.fixture(scope="module")
def enforcing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloudRun]:
    made = LocalCloudRun(tmp_path_factory.mktemp("iam") / "state", "--iam", "enforce")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def owner(enforcing: LocalCloudRun) -> Iterator[Owner]:
    made = Owner(enforcing)
    yield made
    made.http.close()


@pytest.fixture(scope="module")
def client(owner: Owner) -> Iterator[CloudRun]:
    """Return the owner's client, with an existing service `app`."""
    made = CloudRun(owner.url, PROJECT)
    made.http.headers.update(owner.http.headers)
    made.ready(service("app", made.push(), "app-1"))
    yield made
    made.http.close()


@pytest.fixture
def user(owner: Owner, client: CloudRun) -> Iterator[requests.Session]:
    """Yield a user without roles. A test grants roles, which are revoked after it."""
    with requests.Session() as http:
        http.headers["Authorization"] = f"Bearer {owner.token_of(USER)}"
        yield http
    for resource in (project(), service_resource("app"), repository("images"), account(RUNTIME)):
        owner.change(resource, lambda all: [b for b in all if b["members"] != [USER]])


def message(answer: requests.Response) -> str:
    assert answer.status_code == 403, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (403, "PERMISSION_DENIED")
    return str(error["message"])


def test_a_missing_or_bad_token_is_401(owner: Owner) -> None:
    url = f"{owner.url}/v1/{BASE}/services"
    for headers in ({}, {"Authorization": "Bearer ya29.guessed"}, {"Authorization": "Basic eDp5"}):
        answer = requests.get(url, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
        assert "Expected OAuth 2 access token" in answer.json()["error"]["message"]
        assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")


@pytest.mark.parametrize(
    ("method", "path", "permission", "resource", "role"),
    [
        ("GET", f"v1/{BASE}/services", "run.services.list", "services", "run.viewer"),
        ("GET", f"{KNATIVE}/services", "run.services.list", "services", "run.viewer"),
        ("GET", f"v1/{BASE}/services/app", "run.services.get", "services/app", "run.viewer"),
        ("GET", f"{KNATIVE}/services/app", "run.services.get", "services/app", "run.viewer"),
        ("POST", f"v1/{BASE}/services", "run.services.create", "services", "run.developer"),
        ("PUT", f"{KNATIVE}/services/app", "run.services.update", "services/app", "run.developer"),
        ("DELETE", f"v1/{BASE}/services/x", "run.services.delete", "services/x", "run.developer"),
        ("GET", f"v1/{BASE}/revisions", "run.revisions.list", "revisions", "run.viewer"),
        (
            *("GET", f"v1/{BASE}/revisions/app-1", "run.revisions.get"),
            *("revisions/app-1", "run.viewer"),
        ),
        (
            *("DELETE", f"{KNATIVE}/revisions/app-1", "run.revisions.delete"),
            *("revisions/app-1", "run.developer"),
        ),
        (
            *("GET", f"v1/{BASE}/services/app:getIamPolicy", "run.services.getIamPolicy"),
            *("services/app", "run.viewer"),
        ),
        (
            *("POST", f"v1/{BASE}/services/app:setIamPolicy", "run.services.setIamPolicy"),
            *("services/app", "run.admin"),
        ),
        ("GET", f"{KNATIVE}/routes/app", "run.routes.get", "routes/app", "run.viewer"),
        (
            *("GET", f"{KNATIVE}/configurations", "run.configurations.list"),
            *("configurations", "run.viewer"),
        ),
    ],
)
def test_a_missing_permission_is_named_and_its_role_suffices(
    owner: Owner, client: CloudRun, user: requests.Session,
    method: str, path: str, permission: str, resource: str, role: str,
) -> None:  # fmt: skip
    refusal = message(user.request(method, f"{owner.url}/{path}", json={}))
    assert refusal == (
        f"Permission '{permission}' denied on resource 'namespaces/{PROJECT}/{resource}' "
        "(or resource may not exist)."
    )
    # The next smaller role, if there is one, does not suffice.
    smaller = {"run.developer": "run.viewer", "run.admin": "run.developer"}.get(role)
    if smaller:
        owner.grant(project(), f"roles/{smaller}", USER)
        assert message(user.request(method, f"{owner.url}/{path}", json={})) == refusal
    owner.grant(project(), f"roles/{role}", USER)
    allowed = user.request(method, f"{owner.url}/{path}", json={})
    # The status of an empty request once it is allowed; a service needs permission for its account.
    outcome = {
        "run.services.create": 403, "run.services.update": 403, "run.services.delete": 404,
        "run.revisions.delete": 400, "run.services.setIamPolicy": 400,
    }.get(permission, 200)  # fmt: skip
    assert allowed.status_code == outcome, allowed.text
    assert ("'iam.serviceaccounts.actAs' denied" in allowed.text) == (outcome == 403)


def test_a_role_on_a_service_does_not_apply_to_another(
    owner: Owner, client: CloudRun, user: requests.Session
) -> None:
    owner.grant(service_resource("app"), "roles/run.viewer", USER)
    assert user.get(f"{client.base}/services/app").status_code == 200
    assert user.get(f"{client.base}/revisions/app-1").status_code == 200
    assert "'run.services.get'" in message(user.get(f"{client.base}/services/other"))
    assert "'run.services.list'" in message(user.get(f"{client.base}/services"))


def test_a_deployer_needs_the_revisions_account_and_the_image(
    owner: Owner, client: CloudRun, user: requests.Session
) -> None:
    owner.grant(project(), "roles/run.developer", USER)
    image = client.push("other")
    document = service("mine", image, "mine-1")
    document["spec"]["template"]["spec"]["serviceAccountName"] = RUNTIME
    services = f"{client.base}/services"
    assert message(user.post(services, json=document)) == (
        f"Permission 'iam.serviceaccounts.actAs' denied on service account {RUNTIME} (or it may "
        "not exist)."
    )
    owner.grant(account(RUNTIME), "roles/iam.serviceAccountUser", USER)
    assert message(user.post(services, json=document)) == (
        'Permission "artifactregistry.repositories.downloadArtifacts" denied on resource '
        f'"projects/{PROJECT}/locations/us-central1/repositories/images" (or it may not exist)'
    )
    owner.grant(repository("images"), "roles/artifactregistry.reader", USER)
    assert user.post(services, json=document).status_code == 200
    # A change of traffic does not need the image again.
    client.settled("mine")
    owner.revoke(repository("images"), "roles/artifactregistry.reader")
    assert user.put(f"{services}/mine", json=client.get("mine")).status_code == 200
    # Without an account, a revision runs as the project's default one.
    del document["spec"]["template"]["spec"]["serviceAccountName"]
    refusal = message(user.post(services, json=document))
    assert "-compute@developer.gserviceaccount.com" in refusal


def test_permissions_of_the_caller_are_listed(
    owner: Owner, client: CloudRun, user: requests.Session
) -> None:
    asked = {"permissions": ["run.services.get", "run.services.update"]}
    url = f"{client.base}/services/app:testIamPermissions"
    assert user.post(url, json=asked).json() == {}
    owner.grant(project(), "roles/run.viewer", USER)
    assert user.post(url, json=asked).json() == {"permissions": ["run.services.get"]}
    whole = user.post(f"{owner.url}/v1/{project()}:testIamPermissions", json=asked)
    assert whole.json() == {"permissions": ["run.services.get"]}
    assert client.http.post(url, json=asked).json() == asked


def test_a_conditional_binding_grants_nothing(
    owner: Owner, client: CloudRun, user: requests.Session
) -> None:
    """No condition is evaluated here: none may count as fulfilled."""
    bound = {
        "role": "roles/run.viewer",
        "members": [USER],
        "condition": {"title": "never", "expression": "false"},
    }
    owner.change(project(), lambda all: [*all, bound])
    assert user.get(f"{client.base}/services/app").status_code == 403


def test_logs_need_a_role_in_every_project_of_the_request(
    owner: Owner, user: requests.Session
) -> None:
    url = f"{owner.url}/v2/entries:list"
    names = {"resourceNames": [f"projects/{PROJECT}"]}
    assert "'logging.logEntries.list' denied" in message(user.post(url, json=names))
    owner.grant(project(), "roles/logging.viewer", USER)
    assert user.post(url, json=names).status_code == 200
    both = {"resourceNames": [f"projects/{PROJECT}", "projects/others"]}
    assert "'projects/others'" in message(user.post(url, json=both))
    assert user.post(url, json={"projectIds": ["others"]}).status_code == 403


@pytest.mark.parametrize(
    ("verb", "permission", "role", "body"),
    [
        ("generateAccessToken", "getAccessToken", "serviceAccountTokenCreator", {"scope": ["s"]}),
        (
            "generateIdToken",
            "getOpenIdToken",
            "serviceAccountOpenIdTokenCreator",
            {"audience": "a"},
        ),
        ("generateIdToken", "getOpenIdToken", "workloadIdentityUser", {"audience": "a"}),
    ],
)
def test_impersonating_an_account_needs_a_role_on_it(
    owner: Owner, user: requests.Session, verb: str, permission: str, role: str, body: Any
) -> None:
    url = f"{owner.url}/v1/{account(RUNTIME)}:{verb}"
    assert message(user.post(url, json=body)) == (
        f"Permission 'iam.serviceAccounts.{permission}' denied on resource (or it may not exist)."
    )
    # The role of owner is not enough, as at Google.
    assert owner.http.post(url, json=body).status_code == 403
    owner.grant(account(RUNTIME), f"roles/iam.{role}", USER)
    assert user.post(url, json=body).status_code == 200
    if role == "serviceAccountOpenIdTokenCreator":
        other = f"{owner.url}/v1/{account(RUNTIME)}:generateAccessToken"
        assert user.post(other, json={"scope": ["s"]}).status_code == 403


def test_a_secret_needs_the_role_of_an_accessor(
    owner: Owner, client: CloudRun, user: requests.Session
) -> None:
    """A caller needs it, and the account that a revision runs as."""
    secrets = f"{owner.url}/v1/{project()}/secrets"
    replication = {"replication": {"automatic": {}}}
    assert "'secretmanager.secrets.create'" in message(user.post(secrets, json=replication))
    owner.post(f"{secrets}?secretId=key", replication)
    owner.post(f"{secrets}/key:addVersion", {"payload": {"data": "c2VjcmV0"}})
    url = f"{secrets}/key/versions/latest:access"
    assert "'secretmanager.versions.access' denied on resource" in message(user.get(url))
    secret = f"{project()}/secrets/key"
    owner.grant(secret, "roles/secretmanager.secretAccessor", USER)
    assert user.get(url).status_code == 200

    document = service("reads", client.push(), "reads-1")
    container = document["spec"]["template"]["spec"]["containers"][0]
    reference = {"secretKeyRef": {"name": "key", "key": "latest"}}
    container["env"] = [{"name": "KEY", "valueFrom": reference}]
    document["spec"]["template"]["spec"]["serviceAccountName"] = RUNTIME
    assert client.create(document).status_code == 200
    failed = client.settled("reads")
    assert "Permission denied on secret" in str(failed["status"]), failed["status"]
    owner.grant(secret, "roles/secretmanager.secretAccessor", f"serviceAccount:{RUNTIME}")
    document["spec"]["template"]["metadata"]["name"] = "reads-2"
    client.ready(document)


def test_a_model_needs_the_role_of_a_user_of_it(owner: Owner, user: requests.Session) -> None:
    model = f"{BASE}/publishers/google/models/gemini-2.5-flash"
    url = f"{owner.url}/v1beta1/{model}:streamGenerateContent?alt=sse"
    question = {"contents": [{"parts": [{"text": "Hello"}]}]}
    assert message(user.post(url, json=question)) == (
        "Permission 'aiplatform.endpoints.predict' denied on resource "
        f"'//aiplatform.googleapis.com/{model}' (or it may not exist)."
    )
    owner.grant(project(), "roles/aiplatform.user", USER)
    assert user.post(url, json=question).status_code == 200


@pytest.mark.parametrize(
    ("lifetime", "refusal"),
    [("0s", "larger then zero"), ("3601s", "more than 1 hour"), ("soon", "Expected seconds")],
)
def test_lifetimes_of_access_tokens(
    owner: Owner, user: requests.Session, lifetime: str, refusal: str
) -> None:
    owner.grant(account(RUNTIME), "roles/iam.serviceAccountTokenCreator", USER)
    url = f"{owner.url}/v1/{account(RUNTIME)}:generateAccessToken"
    answer = user.post(url, json={"scope": ["s"], "lifetime": lifetime})
    assert answer.status_code == 400
    assert refusal in answer.json()["error"]["message"]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="left out: skopeo is not installed")
def test_skopeo_with_a_token_pulls_as_reader_and_pushes_as_writer(
    owner: Owner, client: CloudRun, user: requests.Session, tmp_path: Path
) -> None:
    """The token is sent as to Artifact Registry, with the user name oauth2accesstoken."""
    write_layout(tmp_path / "in")
    host = owner.url.removeprefix("http://")
    there = f"docker://{host}/{PROJECT}/images/skopeo:v1"
    token = owner.token_of(USER)

    def skopeo(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=60)

    push = [
        *("copy", "--dest-tls-verify=false", f"--dest-creds=oauth2accesstoken:{token}"),
        *(f"oci:{tmp_path}/in:v1", there),
    ]
    pull = ["inspect", "--tls-verify=false", f"--creds=oauth2accesstoken:{token}", there]
    nobody = skopeo("inspect", "--tls-verify=false", "--no-creds", there)
    assert nobody.returncode != 0
    assert "403" in skopeo(*push).stderr
    owner.grant(repository("images"), "roles/artifactregistry.reader", USER)
    assert "artifactregistry.repositories.uploadArtifacts" in skopeo(*push).stderr
    owner.grant(repository("images"), "roles/artifactregistry.writer", USER)
    pushed = skopeo(*push)
    assert pushed.returncode == 0, pushed.stderr
    owner.revoke(repository("images"), "roles/artifactregistry.writer")
    pulled = skopeo(*pull)
    assert pulled.returncode == 0, pulled.stderr
    assert json.loads(pulled.stdout)["RepoTags"] == ["v1"]
    wrong = skopeo("inspect", "--tls-verify=false", "--creds=oauth2accesstoken:guess", there)
    assert wrong.returncode != 0


def test_a_layer_is_not_mounted_from_a_repository_that_the_caller_may_not_read(
    owner: Owner, client: CloudRun, user: requests.Session
) -> None:
    client.push("secret")
    registry = f"{owner.url}/v2/{PROJECT}"
    manifest = client.http.get(f"{registry}/images/secret/manifests/latest").json()
    digest = manifest["layers"][0]["digest"]
    owner.grant(repository("mine"), "roles/artifactregistry.writer", USER)
    mount = {"mount": digest, "from": f"{PROJECT}/images/secret"}
    uploads = f"{registry}/mine/copy/blobs/uploads/"
    assert user.post(uploads, params=mount).status_code == 202, "an upload, not a mount"
    assert user.get(f"{registry}/mine/copy/blobs/{digest}").status_code == 404
    owner.grant(repository("images"), "roles/artifactregistry.reader", USER)
    assert user.post(uploads, params=mount).status_code == 201
    denied = user.delete(f"{registry}/mine/copy/blobs/{digest}")
    assert denied.status_code == 403
    assert denied.json()["errors"][0]["code"] == "DENIED"


def test_policies_and_tokens_survive_a_restart(tmp_path: Path) -> None:
    cloud_run = LocalCloudRun(tmp_path / "state", "--iam", "enforce")
    owner = Owner(cloud_run)
    owner.trust_github()
    owner.grant(project(), "roles/run.viewer", f"serviceAccount:{DEPLOYER}")
    held = owner.token_of(f"serviceAccount:{DEPLOYER}")
    cloud_run.stop()
    cloud_run.start()
    headers = {"Authorization": f"Bearer {held}"}
    assert requests.get(f"{cloud_run.url}/v1/{BASE}/services", headers=headers).status_code == 200
    pool = requests.get(
        f"{cloud_run.url}/v1/{owner.provider}", headers=dict(owner.http.headers)
    ).json()
    assert pool["attributeMapping"]["google.subject"] == "assertion.sub"
    owner.http.close()
    cloud_run.stop()


def asked_by_routes(state: Path) -> dict[tuple[str, str], Asks]:
    """Return the requirements of each route of the local Cloud Run, by method and path."""

    async def read() -> dict[tuple[str, str], Asks]:
        emulator = Emulator(state, idle=1.0, enforced=True)
        await emulator.start(0)
        found = {
            (route.method, route.resource.canonical): asks
            for route, asks in routes.every(emulator.application).items()
            if route.resource is not None and route.method != "HEAD"
        }
        await emulator.close()
        return found

    return asyncio.run(read())


def test_routes_ask_for_permissions_that_a_role_has(tmp_path: Path) -> None:
    asked = asked_by_routes(tmp_path / "state")
    permissions = {asks.permission for asks in asked.values()} - {""}
    assert len(permissions) > 40
    assert permissions <= frozenset().union(*ROLES.values())


def test_only_these_routes_need_no_permission(tmp_path: Path) -> None:
    asked = asked_by_routes(tmp_path / "state")
    free = {at: asks.on for at, asks in asked.items() if not asks.permission}
    # Pages, tokens for something else, and public keys.
    without_token = {path for (_, path), on in free.items() if on is On.NOTHING}
    assert without_token == {
        "/",
        "/_github/.well-known/jwks",
        "/_github/.well-known/openid-configuration",
        "/_github/token",
        "/dockerfile:examine",
        "/logs/{project}/{region}/{name}",
        "/oauth2/v3/certs",
        "/tokeninfo",
        "/v1/roles",
        "/v1/token",
        "/v2/token",
    }
    with_secret = {path for (_, path), on in free.items() if on is On.THIS_MACHINE}
    assert with_secret == {path for _, path in asked if path.startswith("/_local/")}
    with_token = {
        (method, path)
        for (method, path), on in free.items()
        # Testing permissions needs none; "*" answers that a method is not supported.
        if on not in (On.NOTHING, On.THIS_MACHINE)
        and method != "*"
        and not path.endswith((":testIamPermissions", "/iam/testPermissions"))
    }
    assert with_token == {
        ("GET", "/v2/"),
        ("GET", "/v1/operations/{name}"),
        ("GET", "/v1/projects/{project}/locations/{location}/operations/{operation}"),
    }


def test_objects_in_both_apis(
    enforcing: LocalCloudRun, owner: Owner, user: requests.Session
) -> None:
    """Only who may delete an object may overwrite it; the tunnel asks as the JSON API does."""
    bucket = f"{PROJECT}_cloudbuild"

    def upload(**params: str) -> int:
        url = f"{owner.url}/upload/storage/v1/b/{bucket}/o"
        sent = user.post(url, params={"name": "a.txt", **params}, data=b"a", timeout=60)
        return sent.status_code

    def read(token: str | None) -> int:
        with requests.Session() as http:
            http.trust_env = False
            http.proxies = {"https": owner.url}
            http.verify = str(enforcing.state / "google-certificate.pem")
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            url = f"https://storage.googleapis.com/{bucket}/a.txt"
            return http.get(url, headers=headers, timeout=60).status_code

    token = owner.token_of(USER)
    assert (upload(), read(token), read(None)) == (403, 403, 401)
    owner.grant(project(), "roles/storage.objectCreator", USER)
    assert (upload(), upload(), upload(ifGenerationMatch="0"), read(token)) == (200, 403, 412, 403)
    owner.grant(project(), "roles/storage.objectUser", USER)
    assert (upload(), read(token)) == (200, 200)
