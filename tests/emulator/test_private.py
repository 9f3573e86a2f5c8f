"""Private services: which tokens are accepted, and which headers the container gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import google.auth.transport.requests
import pytest
import requests
from google.oauth2 import id_token

from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, Document, service, tag_url
from tests.identity_help import PROJECT, RUNTIME, STRANGER, Owner, account
from tests.identity_help import service as resource

NAME = "private"
CALLER = f"caller@{PROJECT}.iam.gserviceaccount.com"


class Private:
    """A private service with a tag, and a caller who may invoke it."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self.owner = Owner(cloud_run)
        self.client = CloudRun(cloud_run.url, PROJECT)
        self.client.http.headers.update(self.owner.http.headers)
        document = service(NAME, self.client.push(), f"{NAME}-1")
        document["spec"]["template"]["spec"]["serviceAccountName"] = RUNTIME
        self.client.ready(document)
        traffic = [
            {"revisionName": f"{NAME}-1", "percent": 100},
            {"revisionName": f"{NAME}-1", "tag": "try"},
        ]
        self.document = self.client.shift(NAME, traffic)
        self.owner.grant(resource(NAME), "roles/run.invoker", f"serviceAccount:{CALLER}")

    @property
    def url(self) -> str:
        return str(self.document["status"]["url"])

    @property
    def tagged(self) -> str:
        return tag_url(self.document, "try")

    def token(self, email: str, audience: str, *, include_email: bool = True) -> str:
        """Return an ID token from IAM Credentials, which the owner has the role for."""
        self.owner.grant(account(email), "roles/iam.serviceAccountTokenCreator", "allUsers")
        body = {"audience": audience, "includeEmail": include_email}
        url = f"{self.owner.url}/v1/{account(email)}:generateIdToken"
        return str(self.owner.post(url, body)["token"])


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    cloud_run = LocalCloudRun(tmp_path_factory.mktemp("private") / "state", "--iam", "enforce")
    made = Private(cloud_run)
    yield made
    made.owner.http.close()
    made.client.http.close()
    cloud_run.stop()


def call(url: str, token: str | None = None, **headers: str) -> requests.Response:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return requests.get(url, headers=headers, timeout=60)


def told(answer: requests.Response) -> dict[str, str]:
    """Return the headers that the container got, by their names in lower case."""
    assert answer.status_code == 200, answer.text
    return {name.lower(): value for name, value in answer.json()["headers"]}


def test_a_missing_token_is_403(private: Private) -> None:
    for url in (private.url, private.tagged):
        answer = call(f"{url}/<b>")
        assert answer.status_code == 403
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "Your client does not have permission to get URL <code>" in answer.text
        assert "<b>" not in answer.text


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "ya29.access"])
def test_a_bad_token_is_401(private: Private, token: str) -> None:
    answer = call(private.url, token)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    assert call(private.url, Authorization="Basic eDp5").status_code == 401


def test_an_access_token_is_refused(private: Private) -> None:
    token = private.owner.token_of(f"serviceAccount:{CALLER}")
    assert call(private.url, token).status_code == 401


def test_the_audience_is_the_services_url_at_a_tag_too(private: Private) -> None:
    right = private.token(CALLER, private.url)
    assert call(private.url, right).status_code == 200
    assert call(private.tagged, right).status_code == 200
    wrong = private.token(CALLER, private.tagged)
    assert call(private.url, wrong).status_code == 401
    assert call(private.tagged, wrong).status_code == 401


def test_a_token_without_an_email_is_accepted(private: Private) -> None:
    token = private.token(CALLER, private.url, include_email=False)
    assert call(private.url, token).status_code == 200


def test_a_principal_without_the_role_is_403(private: Private) -> None:
    assert call(private.url, private.token(STRANGER, private.url)).status_code == 403


def test_the_container_gets_no_signature(private: Private) -> None:
    token = private.token(CALLER, private.url)
    unsigned = f"Bearer {token.rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE"
    assert told(call(private.url, token))["authorization"] == unsigned
    # The other header is for services that use Authorization themselves.
    both = told(call(private.url, "its own", **{"X-Serverless-Authorization": f"Bearer {token}"}))
    assert both["authorization"] == "Bearer its own"
    assert both["x-serverless-authorization"] == unsigned


def replace(private: Private, change: Any) -> None:
    document: Document = private.client.get(NAME)
    change(document["metadata"]["annotations"])
    private.client.ready(document)


def test_the_annotation_opens_the_service(private: Private) -> None:
    disabled = "run.googleapis.com/invoker-iam-disabled"
    replace(private, lambda annotations: annotations.update({disabled: "true"}))
    assert call(private.url).status_code == 200
    replace(private, lambda annotations: annotations.pop(disabled))
    assert call(private.url).status_code == 403


def test_all_users_open_the_service_and_its_own_tokens_reach_it(private: Private) -> None:
    private.owner.grant(resource(NAME), "roles/run.invoker", "allUsers")
    try:
        assert call(private.url).status_code == 200
        assert told(call(private.url, "its own"))["authorization"] == "Bearer its own"
    finally:
        private.owner.change(
            resource(NAME), lambda all: [b for b in all if b["members"] != ["allUsers"]]
        )
    assert call(private.url).status_code == 403


def test_google_auth_gets_a_token_from_the_metadata_server(
    private: Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that calls another one uses `fetch_id_token` and an access token."""
    token = private.token(CALLER, private.url)
    host = call(private.url, token).json()["env"]["GCE_METADATA_HOST"]
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, host)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    code = (
        "import sys, google.auth, google.auth.transport.requests as t\n"
        "from google.oauth2 import id_token\n"
        "request = t.Request()\n"
        "print(id_token.fetch_id_token(request, sys.argv[1]))\n"
        "credentials, project = google.auth.default()\n"
        "credentials.refresh(request)\n"
        "print(credentials.token, project, credentials.service_account_email)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, private.url],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    made, access = done.stdout.splitlines()
    claims = id_token.verify_token(
        made,
        google.auth.transport.requests.Request(),
        private.url,
        certs_url=f"{private.owner.url}/oauth2/v3/certs",
    )
    assert claims["email"] == RUNTIME
    access_token, project, email = access.split()
    assert (project, email) == (PROJECT, RUNTIME)
    listed = requests.get(
        f"{private.client.base}/services", headers={"Authorization": f"Bearer {access_token}"}
    )
    assert listed.status_code == 403, "known, and without a role"
    assert call(private.url, made).status_code == 403
    private.owner.grant(resource(NAME), "roles/run.invoker", f"serviceAccount:{RUNTIME}")
    assert call(private.url, made).status_code == 200
    private.owner.revoke(resource(NAME), "roles/run.invoker")
    private.owner.grant(resource(NAME), "roles/run.invoker", f"serviceAccount:{CALLER}")


def test_without_enforcement_every_caller_is_accepted(cloud_run: CloudRun, image: str) -> None:
    made = cloud_run.ready(service("open-by-default", image))
    assert call(made["status"]["url"]).status_code == 200
