"""The caller's credentials: access tokens, and where they may be sent."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from scripts.cloud.answers import HIDDEN, BadAnswer
from scripts.cloud.patience import Patience
from scripts.cloud.session import LOOPBACK, Session
from scripts.errors import UsageError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Credentials:
    """Application Default Credentials, or one access token, or none.

    Args:
        wanted: what the environment names: "google" for the default ones. Others are none: whom
            the local Cloud Run knows gets tokens there (`LocalIdentity`).
        project: the environment's project.
        patience: how long it keeps trying to get a token.
        token: an access token to use instead.

    Attributes:
        found: google-auth's object; None until it is needed.
    """

    def __init__(
        self, wanted: str, project: str, patience: Patience, token: str | None = None
    ) -> None:
        self.none = wanted != "google"
        self.found: Any = None
        self._project = project
        self._patience = patience
        self._token = token
        self._lock = threading.Lock()

    def token(self, url: str) -> str | None:
        """Return the access token for a request to `url`; None if requests carry none.

        It travels over TLS only, or stays on this machine (I9).

        Raises:
            UsageError: there are no credentials, or `url` would carry them in the clear.
        """
        if self.none:
            return None
        check_confidential(url)
        if self._token:
            return self._token
        with self._lock, usable():
            credentials = self.find()
            if not credentials.valid:
                self._refresh(credentials)
        return str(credentials.token)

    def newer_token(self, url: str, refused: str) -> str | None:
        """Return a newer access token than one that was refused with 401; None if none exists.

        Raises:
            UsageError: the credentials are no longer accepted.
        """
        if self.none or self._token:
            return None
        check_confidential(url)
        with self._lock, usable():
            credentials = self.find()
            if credentials.token == refused:
                self._refresh(credentials)
        return str(credentials.token)

    def _refresh(self, credentials: Any) -> None:
        import google.auth.transport.requests

        session = Session(self._patience, repeatable=True)
        credentials.refresh(google.auth.transport.requests.Request(session))

    def find(self) -> Any:
        """Find Application Default Credentials, once."""
        import google.auth

        if self.found is None:
            # Otherwise google-auth asks Google for the project of federated credentials, whatever
            # the endpoint is.
            os.environ.setdefault("GOOGLE_CLOUD_PROJECT", self._project)
            credentials, _ = google.auth.default(scopes=[SCOPE])
            _check_account(credentials)
            self.found = credentials
        return self.found

    def quota_project(self, named: str | None) -> str | None:
        """Return the project whose quota a user's requests count against, if one is named.

        Some of Google's APIs require one from a user; service accounts have their own. Naming a
        project takes a permission in it, so only `bootstrap` names one by itself.
        Source: https://cloud.google.com/docs/quotas/quota-project
        """
        if self.found is None:
            return None
        # Imported here: calls without credentials do not wait for the library.
        from google.oauth2.credentials import Credentials

        if not isinstance(self.found, Credentials):
            return None
        return self.found.quota_project_id or named


def is_confidential(url: str) -> bool:
    """Return whether no one can read what is sent to `url`: over TLS, or on this machine (I9)."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def check_confidential(url: str) -> None:
    if not is_confidential(url):
        parts = urlsplit(url)
        raise UsageError(f"{parts.scheme}://{parts.netloc}: credentials are sent over https only")


def _check_account(credentials: Any) -> None:
    """Check that a workflow's credentials name a service account.

    google-github-actions/auth makes them without one where the GitHub variable is empty. They are
    valid, but have no role.
    """
    import google.auth.external_account as federated

    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    if isinstance(credentials, federated.Credentials) and not credentials.service_account_email:
        raise UsageError(
            "this job's credentials name no service account",
            "set the GitHub variable that names it: DEPLOYER in the job's"
            " environment, PUSHER in the repository",
        )


@contextmanager
def usable() -> Iterator[None]:
    """Turn missing or refused credentials into one clear error."""
    import google.auth.exceptions

    try:
        yield
    except google.auth.exceptions.GoogleAuthError as error:
        said = _said(error)
        hint = "on a laptop: gcloud auth application-default login"
        if "attribute condition" in said:
            hint = "only workflows on this repository's main branch are accepted: docs/security.md"
        raise UsageError(f"no usable Google credentials: {said}", hint) from None
    except (ValueError, KeyError, TypeError):
        # google-auth does not check what it reads. The text of the error may hold a part of it.
        raise BadAnswer(
            "no usable Google credentials: the token service does not answer with a token",
            "try again; a proxy may be the cause",
            evidence=[HIDDEN],
        ) from None


def _said(error: Exception) -> str:
    """Return google-auth's message, and Google's own from the answer that goes with it."""
    message = str(error.args[0]) if error.args else type(error).__name__
    try:
        answered = json.loads(error.args[1])["error"]["message"]
    except (IndexError, KeyError, TypeError, ValueError):
        return message
    return f"{message}: {answered}"
