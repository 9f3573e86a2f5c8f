"""ID tokens for private services, from each kind of credentials.

Source: https://cloud.google.com/run/docs/authenticating/service-to-service and, for federated
credentials, https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateIdToken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import google.auth.credentials
import google.auth.exceptions
import google.auth.external_account
import google.auth.impersonated_credentials
import google.auth.transport.requests
import google.oauth2.id_token

from scripts.cloud.session import Session
from scripts.errors import UsageError

Post = Callable[[str, str, dict[str, Any]], dict[str, Any]]


def make(
    credentials: google.auth.credentials.Credentials,
    audience: str,
    scope: str,
    session: Session,
    post: Post,
) -> str:
    """Make an ID token of the service account that the credentials belong to or impersonate.

    Args:
        credentials: Application Default Credentials.
        audience: the service's own URL.
        scope: the scope of the access token that requests it, for federated credentials.
        session: sends the requests of google-auth.
        post: sends a JSON body to a URL with an access token; returns the answer.

    Raises:
        UsageError: these credentials cannot have one.
        google.auth.exceptions.GoogleAuthError: they are refused.
    """
    request = google.auth.transport.requests.Request(session)
    if isinstance(credentials, google.auth.external_account.Credentials):
        return _federated(credentials, audience, scope, request, post)
    if isinstance(credentials, google.auth.impersonated_credentials.Credentials):
        make_tokens: Any = google.auth.impersonated_credentials.IDTokenCredentials
        tokens = make_tokens(credentials, target_audience=audience, include_email=True)
        tokens.refresh(request)
        return str(tokens.token)
    # google-auth has no annotations for these, here and below.
    fetch: Any = google.oauth2.id_token.fetch_id_token
    try:
        return str(fetch(request, audience))
    except google.auth.exceptions.DefaultCredentialsError:
        raise UsageError(
            "the service is private, and these credentials cannot have an ID token for it",
            "impersonate a service account that may invoke it:"
            " gcloud auth application-default login --impersonate-service-account ACCOUNT",
        ) from None


def _federated(
    credentials: google.auth.external_account.Credentials,
    audience: str,
    scope: str,
    request: google.auth.transport.requests.Request,
    post: Post,
) -> str:
    """Ask IAM Credentials: `fetch_id_token` does not support federated credentials.

    The request carries the federated token, not the account's. So it needs no role except
    roles/iam.workloadIdentityUser, which allows the impersonation.
    """
    info = credentials.info
    impersonation = info.pop("service_account_impersonation_url", None)
    info.pop("service_account_impersonation", None)
    if not impersonation:
        raise UsageError(
            "the service is private, and only a service account can have an ID token for it",
            "name one for the credentials (google-github-actions/auth: service_account)",
        )
    kind: Any = type(credentials)
    source = kind.from_info(info, scopes=[scope])
    source.refresh(request)
    url = impersonation.replace(":generateAccessToken", ":generateIdToken")
    answer = post(url, str(source.token), {"audience": audience, "includeEmail": True})
    return str(answer["token"])
