"""A local Cloud Run that enforces IAM, and its owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests

from emulator.identity.policies import OWNER
from tests.conftest import LocalCloudRun

Document = dict[str, Any]

PROJECT = "acme-staging"
POOL, PROVIDER = "github", "acme-app"
DEPLOYER = f"deployer@{PROJECT}.iam.gserviceaccount.com"
RUNTIME = f"runtime@{PROJECT}.iam.gserviceaccount.com"
STRANGER = "stranger@elsewhere.iam.gserviceaccount.com"
CLAIMS = {
    "repository": "acme/app", "repository_id": "4711", "repository_owner_id": "42",
    "job_workflow_ref": "acme/app/.github/workflows/build.yml@refs/heads/main",
}  # fmt: skip
CONDITION = "assertion.repository_id == '4711' && assertion.repository_owner_id == '42'"


class Owner:
    """The owner of every project of a local Cloud Run that enforces IAM."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self._cloud_run = cloud_run
        self.url = url = cloud_run.url
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {self.token_of(OWNER)}"
        number = self.http.get(f"{url}/v1/projects/{PROJECT}").json()["projectNumber"]
        self.pool = f"projects/{number}/locations/global/workloadIdentityPools/{POOL}"
        self.provider = f"{self.pool}/providers/{PROVIDER}"
        self.issuer = f"{url}/_github"

    def token_of(self, member: str) -> str:
        """Return an access token of a user or service account."""
        made = self._cloud_run.local("POST", "access-tokens", {"member": member})
        return str(made["access_token"])

    def trust_github(self, **changes: Any) -> None:
        """Create the pool and its provider, with `changes` to the provider."""
        base = f"{self.url}/v1/projects/{PROJECT}/locations/global/workloadIdentityPools"
        self.post(f"{base}?workloadIdentityPoolId={POOL}", {})
        provider = {
            "attributeMapping": {
                "google.subject": "assertion.sub",
                "attribute.repository_id": "assertion.repository_id",
            },
            "attributeCondition": CONDITION,
            "oidc": {"issuerUri": self.issuer},
            **changes,
        }
        self.post(f"{base}/{POOL}/providers?workloadIdentityPoolProviderId={PROVIDER}", provider)

    def post(self, url: str, body: Any) -> Any:
        answer = self.http.post(url, json=body)
        assert answer.ok, answer.text
        return answer.json()

    def grant(self, resource: str, role: str, *members: str) -> None:
        """Add a binding to the policy of a project, account, service or repository."""
        self.change(resource, lambda bindings: [*bindings, {"role": role, "members": [*members]}])

    def revoke(self, resource: str, role: str) -> None:
        """Remove every binding of a role."""
        self.change(resource, lambda bindings: [b for b in bindings if b["role"] != role])

    def change(self, resource: str, how: Any) -> None:
        url = f"{self.url}/v1/{resource}"
        own_url = "/locations/" in resource or "/secrets/" in resource
        get = self.http.get if own_url else self.http.post
        policy = get(f"{url}:getIamPolicy").json()
        policy["bindings"] = how(policy.get("bindings", []))
        self.post(f"{url}:setIamPolicy", {"policy": policy})

    def let_github_impersonate(self, email: str) -> None:
        """Let every identity from the repository impersonate a service account."""
        member = f"principalSet://iam.googleapis.com/{self.pool}/attribute.repository_id/4711"
        self.grant(account(email), "roles/iam.workloadIdentityUser", member)

    def job(self, **claims: Any) -> dict[str, str]:
        """Return the environment variables of a GitHub Actions job with these claims."""
        made = self._cloud_run.local("POST", "github/jobs", {**CLAIMS, **claims})
        variables: dict[str, str] = made
        return variables

    def github_token(self, *, audience: str | None = None, **claims: Any) -> str:
        """Return a job's OIDC token, for the provider unless another audience is named."""
        job = self.job(**claims)
        answer = requests.get(
            job["ACTIONS_ID_TOKEN_REQUEST_URL"],
            params={"audience": audience or f"https://iam.googleapis.com/{self.provider}"},
            headers={"Authorization": f"Bearer {job['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"},
        )
        assert answer.ok, answer.text
        return str(answer.json()["value"])

    def credentials(self, file: Path, job: dict[str, str], email: str | None = DEPLOYER) -> Path:
        """Write the file that google-github-actions/auth writes, with the local addresses."""
        audience = f"https://iam.googleapis.com/{self.provider}"
        content: Document = {
            "type": "external_account",
            "audience": f"//iam.googleapis.com/{self.provider}",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/v1/token",
            "credential_source": {
                "url": f"{job['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={audience}",
                "headers": {"Authorization": f"Bearer {job['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"},
                "format": {"type": "json", "subject_token_field_name": "value"},
            },
        }
        if email:
            accounts = f"{self.url}/v1/projects/-/serviceAccounts"
            content["service_account_impersonation_url"] = f"{accounts}/{email}:generateAccessToken"
        file.write_text(json.dumps(content))
        return file


def project() -> str:
    """Return the project in the form for `Owner.grant`."""
    return f"projects/{PROJECT}"


def account(email: str) -> str:
    """Return a service account in the form for `Owner.grant`."""
    return f"projects/-/serviceAccounts/{email}"


def service(name: str) -> str:
    """Return a service in the form for `Owner.grant`."""
    return f"projects/{PROJECT}/locations/us-central1/services/{name}"


def repository(name: str) -> str:
    """Return a repository in the form for `Owner.grant`."""
    return f"projects/{PROJECT}/locations/us-central1/repositories/{name}"
