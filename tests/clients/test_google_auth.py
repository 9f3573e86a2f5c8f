"""An unmodified google-auth with federated credentials from the local issuer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth.exceptions
import google.auth.transport.requests
import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import identity_pool
from google.oauth2 import id_token

from tests.conftest import LocalCloudRun
from tests.identity_help import DEPLOYER, PROJECT, Owner, account, project

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    cloud_run = LocalCloudRun(tmp_path / "state", "--iam", "enforce")
    made = Owner(cloud_run)
    made.trust_github()
    yield made
    made.http.close()
    cloud_run.stop()


def session(file: Path) -> google.auth.transport.requests.AuthorizedSession:
    credentials = identity_pool.Credentials.from_file(str(file), scopes=SCOPES)
    return google.auth.transport.requests.AuthorizedSession(credentials)


def exchange(owner: Owner, token: str, **changes: Any) -> requests.Response:
    return requests.post(
        f"{owner.url}/v1/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": f"//iam.googleapis.com/{owner.provider}",
            "scope": SCOPES[0],
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "subject_token": token,
            **changes,
        },
    )


def refusal(answer: requests.Response) -> tuple[str, str]:
    assert answer.status_code == 400, answer.text
    body = answer.json()
    return body["error"], body["error_description"]


def test_a_federated_file_impersonates_and_calls_the_admin_api(
    owner: Owner, tmp_path: Path
) -> None:
    owner.let_github_impersonate(DEPLOYER)
    owner.grant(project(), "roles/run.viewer", f"serviceAccount:{DEPLOYER}")
    file = owner.credentials(tmp_path / "credentials.json", owner.job())
    with session(file) as http:
        services = f"{owner.url}/v1/projects/{PROJECT}/locations/us-central1/services"
        listed = http.get(services)
        assert listed.status_code == 200, listed.text
        assert listed.json()["items"] == []
        made = http.post(services, json={"metadata": {"name": "app"}})
        assert made.status_code == 403
        error = made.json()["error"]
        assert error["status"] == "PERMISSION_DENIED"
        assert error["message"] == (
            f"Permission 'run.services.create' denied on resource 'namespaces/{PROJECT}/services' "
            "(or resource may not exist)."
        )
        assert error["details"][0]["metadata"] == {"permission": "run.services.create"}


def test_a_federated_identity_can_have_a_role_of_its_own(owner: Owner, tmp_path: Path) -> None:
    subject = "repo:acme/app:environment:staging"
    member = f"principal://iam.googleapis.com/{owner.pool}/subject/{subject}"
    owner.grant(project(), "roles/run.viewer", member)
    services = f"{owner.url}/v1/projects/{PROJECT}/locations/us-central1/services"
    for environment, code in (("staging", 200), ("production", 403)):
        job = owner.job(environment=environment)
        with session(owner.credentials(tmp_path / "credentials.json", job, None)) as http:
            assert http.get(services).status_code == code


def test_a_refused_impersonation_names_the_missing_permission(owner: Owner, tmp_path: Path) -> None:
    file = owner.credentials(tmp_path / "credentials.json", owner.job())
    with (
        session(file) as http,
        pytest.raises(google.auth.exceptions.RefreshError) as refused,
    ):
        http.get(f"{owner.url}/v1/projects/{PROJECT}")
    error = json.loads(refused.value.args[1])["error"]
    assert error["message"] == (
        "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
    )


def test_the_impersonated_account_gets_an_id_token(owner: Owner) -> None:
    owner.let_github_impersonate(DEPLOYER)
    federated = exchange(owner, owner.github_token()).json()["access_token"]
    answer = requests.post(
        f"{owner.url}/v1/{account(DEPLOYER)}:generateIdToken",
        json={"audience": "https://app.example", "includeEmail": True},
        headers={"Authorization": f"Bearer {federated}"},
    )
    assert answer.status_code == 200, answer.text
    request = google.auth.transport.requests.Request()
    token = answer.json()["token"]
    certs = requests.get(f"{owner.url}/oauth2/v3/certs").json()
    claims = id_token.verify_token(
        token, request, "https://app.example", certs_url=f"{owner.url}/oauth2/v3/certs"
    )
    assert claims["email"] == DEPLOYER
    assert claims["iss"] == "https://accounts.google.com"
    assert certs["keys"][0]["alg"] == "RS256"


def test_the_issuer_has_the_form_of_githubs(owner: Owner) -> None:
    discovery = requests.get(f"{owner.issuer}/.well-known/openid-configuration").json()
    assert discovery["issuer"] == owner.issuer
    token = owner.github_token(ref="refs/tags/v1", sha="c" * 40, run_id="77", actor="someone")
    key = jwt.PyJWKClient(discovery["jwks_uri"]).get_signing_key_from_jwt(token)
    audience = f"https://iam.googleapis.com/{owner.provider}"
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=owner.issuer)
    assert claims["sub"] == "repo:acme/app:ref:refs/tags/v1"
    assert {name: claims[name] for name in ("ref_type", "sha", "run_id", "actor")} == {
        "ref_type": "tag", "sha": "c" * 40, "run_id": "77", "actor": "someone",
    }  # fmt: skip
    assert claims["repository_owner"] == "acme"
    assert claims["job_workflow_ref"].startswith("acme/app/.github/workflows/")
    assert set(claims) <= set(discovery["claims_supported"])
    assert claims["exp"] - claims["iat"] == 300
    stranger = requests.get(f"{owner.issuer}/token", headers={"Authorization": "Bearer guessed"})
    assert stranger.status_code == 401


def test_the_exchange_also_takes_json_as_sts_does(owner: Owner) -> None:
    answer = requests.post(
        f"{owner.url}/v1/token",
        json={
            "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": f"//iam.googleapis.com/{owner.provider}",
            "scope": SCOPES[0],
            "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
            "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
            "subjectToken": owner.github_token(),
        },
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["token_type"] == "Bearer"
    assert 0 < body["expires_in"] <= 300, "no longer than the token that was exchanged"
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"


def forged(token: str, key: Any, algorithm: str | None) -> str:
    """Return a token with the same claims and key ID, signed with another key or algorithm."""
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})


UNVERIFIED = ("invalid_grant", "Unable to verify the ID Token signature.")


def test_a_token_signed_with_another_key_is_refused(owner: Owner) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert refusal(exchange(owner, forged(owner.github_token(), other, "RS256"))) == UNVERIFIED


def test_changed_claims_are_refused(owner: Owner) -> None:
    head, body, signature = owner.github_token(repository_id="1").split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["repository_id"] = "4711"
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert refusal(exchange(owner, f"{head}.{body}.{signature}")) == UNVERIFIED


def test_an_unsigned_token_is_refused(owner: Owner) -> None:
    assert refusal(exchange(owner, forged(owner.github_token(), None, "none"))) == UNVERIFIED


def test_an_hmac_with_the_public_key_as_secret_is_refused(owner: Owner) -> None:
    """The classic algorithm confusion: a public key must not work as a secret."""
    modulus = requests.get(f"{owner.issuer}/.well-known/jwks").json()["keys"][0]["n"]
    token = forged(owner.github_token(), modulus, "HS256")
    assert refusal(exchange(owner, token)) == UNVERIFIED


def test_a_key_unknown_to_the_issuer_is_refused(owner: Owner) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    claims = jwt.decode(owner.github_token(), options={"verify_signature": False})
    token = jwt.encode(claims, other, algorithm="RS256", headers={"kid": "unknown"})
    code, said = refusal(exchange(owner, token))
    assert (code, said) == (
        "invalid_grant",
        "Error connecting to the given credential's issuer.",
    )


def test_another_issuer_is_refused(owner: Owner) -> None:
    token = owner.github_token(iss="https://token.actions.githubusercontent.com")
    assert refusal(exchange(owner, token)) == (
        "invalid_grant",
        "The issuer in ID Token https://token.actions.githubusercontent.com does not match the "
        f"expected one in config: {owner.issuer}.",
    )


def test_another_audience_is_refused(owner: Owner) -> None:
    assert refusal(exchange(owner, owner.github_token(audience="https://github.com/acme"))) == (
        "invalid_grant",
        "The audience in ID Token [https://github.com/acme] does not match the expected audience.",
    )


def test_an_expired_token_is_refused(owner: Owner) -> None:
    token = owner.github_token(iat=1_700_000_000, exp=1_700_000_300)
    assert refusal(exchange(owner, token)) == (
        "invalid_grant",
        "ID Token issued at 1700000000 is stale to sign-in.",
    )


@pytest.mark.parametrize(
    "claims",
    [
        {"repository": "acme/other", "repository_id": "9"},
        # Someone took over the name: another owner, another number.
        {"repository": "acme/app", "repository_owner_id": "666"},
        {"repository_id": None},
    ],
)
def test_another_repository_is_refused_by_the_condition(
    owner: Owner, claims: dict[str, Any]
) -> None:
    assert refusal(exchange(owner, owner.github_token(**claims))) == (
        "unauthorized_client",
        "The given credential is rejected by the attribute condition.",
    )


def test_an_unknown_provider_is_refused(owner: Owner) -> None:
    gone = f"//iam.googleapis.com/{owner.pool}/providers/gone"
    code, said = refusal(exchange(owner, owner.github_token(), audience=gone))
    assert code == "invalid_target"
    assert said.startswith('The target service indicated by the "audience" parameters is invalid.')
    code, said = refusal(exchange(owner, owner.github_token(), audience="https://app.example"))
    assert code == "invalid_request"
    assert said.startswith('Invalid value for "audience". This value should be the full resource')


def test_a_provider_for_githubs_issuer_needs_a_condition(owner: Owner) -> None:
    answer = owner.http.post(
        f"{owner.url}/v1/{owner.pool}/providers?workloadIdentityPoolProviderId=open",
        json={
            "attributeMapping": {"google.subject": "assertion.sub"},
            "oidc": {"issuerUri": owner.issuer},
        },
    )
    assert answer.status_code == 400
    assert "must reference one of the provider's claims" in answer.json()["error"]["message"]


def test_the_state_folder_holds_no_token(owner: Owner, tmp_path: Path) -> None:
    """I9: it holds only hashes."""
    owner.let_github_impersonate(DEPLOYER)
    token = owner.github_token()
    made = exchange(owner, token).json()["access_token"]
    stored = [f.read_bytes() for f in (tmp_path / "state").rglob("*") if f.is_file()]
    assert len(stored) > 3
    # The full form of a JWT and of an access token: their first letters alone occur in keys, too.
    shapes = rb"eyJ[\w-]{16,}\.[\w-]{16,}|ya29\.[\w.-]{16,}"
    for content in stored:
        assert token.encode() not in content
        assert made.encode() not in content
        assert not re.search(shapes, content)
    assert re.search(shapes, token.encode())
    assert re.search(shapes, made.encode())
