"""Each known error is recognized by its text and explained, with a fix.

Each text is as Google, GitHub or Docker writes it, with numbers and names changed.
"""

from __future__ import annotations

import re

import pytest

from scripts.cloud import known_errors
from scripts.errors import Failed

CONTEXT = {
    "where": "app --env staging",
    "env": "staging",
    "project": "acme-staging",
    "service": "app",
    "account": "deployer@acme-staging.iam.gserviceaccount.com",
}
TEXTS = [
    (
        "api-disabled",
        "GET /v1/x: 403 PERMISSION_DENIED: Cloud Run Admin API has not been used in project 123"
        " before or it is disabled. Enable it by visiting https://console.developers.google.com"
        "/apis/api/run.googleapis.com/overview?project=123 then retry.",
        "run.googleapis.com is not enabled in 123",
        "gcloud services enable run.googleapis.com --project 123",
    ),
    (
        "api-disabled",
        "denied: Artifact Registry API has not been used in project 123 before or it is disabled."
        " Enable it by visiting https://console.developers.google.com/apis/api/"
        "artifactregistry.googleapis.com/overview?project=123 then retry.",
        "artifactregistry.googleapis.com",
        "gcloud services enable artifactregistry.googleapis.com",
    ),
    (
        "no-billing",
        "FAILED_PRECONDITION: Billing account for project '123' is not found. Billing must be"
        " enabled for activation of service(s) 'run.googleapis.com' to proceed.",
        "project 123 has no billing account",
        "gcloud billing projects link 123",
    ),
    (
        "quota-project",
        "Your application is authenticating by using local Application Default Credentials. The"
        " iam.googleapis.com API requires a quota project, which is not set by default.",
        "do not name the project whose quota",
        "gcloud auth application-default set-quota-project acme-staging",
    ),
    (
        "permission-denied",
        "403 PERMISSION_DENIED: Permission 'run.services.update' denied on resource"
        " 'namespaces/acme-staging/services/app' (or resource may not exist).",
        "deployer@acme-staging.iam.gserviceaccount.com lacks run.services.update on"
        " namespaces/acme-staging/services/app",
        "./ship bootstrap --env staging",
    ),
    (
        "permission-denied",
        "Permission 'iam.serviceaccounts.actAs' denied on service account"
        " app-runtime@acme-staging.iam.gserviceaccount.com (or it may not exist).",
        "lacks iam.serviceaccounts.actAs on app-runtime@acme-staging.iam.gserviceaccount.com",
        "./ship bootstrap --env staging",
    ),
    (
        "permission-denied",
        "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
        "lacks iam.serviceAccounts.getAccessToken on it",
        "./ship bootstrap --env staging",
    ),
    (
        "permission-denied",
        'denied: Permission "artifactregistry.repositories.uploadArtifacts" denied on resource'
        ' "projects/acme-ops/locations/us-central1/repositories/services" (or it may not exist)',
        "lacks artifactregistry.repositories.uploadArtifacts on"
        " projects/acme-ops/locations/us-central1/repositories/services",
        "./ship bootstrap",
    ),
    (
        "token-exchange",
        "denied: Token exchange failed for project 'acme-ops'. Caller does not have permission"
        " 'storage.buckets.get'. To configure permissions, follow instructions at: …",
        "the registry of acme-ops does not accept these credentials: deployer@",
        "./ship bootstrap",
    ),
    (
        "wrong-platform",
        "The container image 'x' is not usable. Container manifest type"
        " 'application/vnd.oci.image.index.v1+json' must support amd64/linux.",
        "the image is not for linux/amd64",
        "it always builds for linux/amd64",
    ),
    (
        "port",
        "The user-provided container failed to start and listen on the port defined provided by the"
        " PORT=8080 environment variable within the allocated timeout.",
        "did not listen on $PORT",
        "./ship logs app --env staging",
    ),
    (
        "port",
        "Revision 'app-1' is not ready and cannot serve traffic. Container failed to start and"
        " listen on the port defined by the PORT environment variable.",
        "did not listen on $PORT",
        "./ship logs",
    ),
    (
        "quota",
        "429 RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Read requests' and limit 'Read"
        " requests per minute per region' of service 'run.googleapis.com' for consumer 'x'.",
        "the quota of run.googleapis.com (Read requests) is used up",
        "wait a minute",
    ),
    (
        "org-policy",
        "FAILED_PRECONDITION: One or more users named in the policy do not belong to a permitted"
        " customer, perhaps due to an organization policy.",
        "forbids allUsers",
        "set access: private in pipelines/app/staging.yaml",
    ),
    (
        "org-policy-invoker",
        "Operation denied by org policy: [constraints/run.managed.requireInvokerIam: …]",
        "forbids services that are open to everyone",
        "access: private",
    ),
    (
        "no-repository",
        'name unknown: Repository "services" not found',
        "the repository services does not exist",
        "./ship bootstrap",
    ),
    (
        "immutable-tag",
        "manifest invalid: cannot update tag 6ef91577. The repository has enabled tag immutability",
        "tag 6ef91577 already names another image",
        "make a new commit",
    ),
    (
        "attribute-condition",
        "unauthorized_client: The given credential is rejected by the attribute condition.",
        "Google does not accept this job",
        "./ship bootstrap",
    ),
    (
        "no-provider",
        'invalid_target: The target service indicated by the "audience" parameters is invalid.',
        "does not exist, is disabled",
        "./ship bootstrap",
    ),
    (
        "clock",
        "invalid_grant: Invalid JWT: Token must be a short-lived token (60 minutes) and in a"
        " reasonable timeframe. Check your iat and exp values in the JWT claim.",
        "this machine's clock is wrong",
        "timedatectl",
    ),
    (
        "login-expired",
        "Reauthentication is needed. Please run `gcloud auth application-default login` to"
        " reauthenticate.",
        "expired",
        "gcloud auth application-default login",
    ),
    (
        "secret-denied",
        "spec.template.spec.containers[0].env[0].value_from.secret_key_ref.name: Permission denied"
        " on secret: projects/1/secrets/key/versions/latest for Revision service account"
        " app-runtime@acme-staging.iam.gserviceaccount.com. The service account used must be…",
        "@acme-staging.iam.gserviceaccount.com, the account that the service runs as, may not read",
        "./ship bootstrap",
    ),
    (
        "secret-missing",
        "…secret_key_ref.name: Secret projects/1/secrets/key/versions/latest was not found",
        "the secret key has no such version",
        "gcloud secrets versions add key --project=acme-staging",
    ),
    (
        "image-denied-to-agent",
        "Google Cloud Run Service Agent service-1@serverless-robot-prod.iam.gserviceaccount.com"
        " must have permission to read the image, x.",
        "may not read images of another project",
        "./ship bootstrap",
    ),
    (
        "no-docker",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon"
        " running?",
        "no Docker engine runs",
        "start Docker",
    ),
    ("no-buildx", "docker: 'buildx' is not a docker command.", "buildx plugin", "docs.docker.com"),
    (
        "no-credentials",
        "no usable Google credentials: Your default credentials were not found.",
        "no Google credentials",
        "gcloud auth application-default login",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "means", "fix"), TEXTS)
def test_it_is_explained(name: str, text: str, means: str, fix: str) -> None:
    # Line breaks make no difference.
    for shown in (text, text.replace(" ", "\n      "), f"#12 ERROR: {text}"):
        found = known_errors.explain(shown, **CONTEXT)
        assert found is not None
        assert found.name == name
        assert means in found.means
        assert fix in found.fix
        assert not re.search(r"[{}]", found.means + found.fix)


def test_every_error_of_the_table_has_a_text() -> None:
    assert {name for name, *_ in TEXTS} == {one.name for one in known_errors.TABLE}


def test_an_unknown_error_is_not_guessed() -> None:
    assert known_errors.explain("it rained") is None


def test_an_unknown_account_is_called_the_caller() -> None:
    text = next(text for name, text, *_ in TEXTS if name == "permission-denied")
    found = known_errors.explain(text)
    assert found is not None
    assert found.means.startswith("the caller lacks")
    assert not re.search(r"[{}]", found.means + found.fix)


def test_a_services_own_output_is_not_explained() -> None:
    line = next(text for name, text, *_ in TEXTS if name == "permission-denied")
    error = Failed("revision app-1 did not start", evidence=["it ended"], service_says=[line])
    assert known_errors.explain_error(error) is None
    error = Failed("docker buildx build failed", evidence=[line])
    assert known_errors.explain_error(error) is not None
