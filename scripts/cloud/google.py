"""Requests to Google's APIs, or to what stands in for them: credentials, retries, typed errors."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, UsageError

_RETRIED = (429, 500, 502, 503, 504)
_ATTEMPTS = 4
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class ApiError(Failed):
    """An API refused a request.

    Attributes:
        code: the HTTP status.
        status: Google's name for the error, such as NOT_FOUND.
    """

    def __init__(self, code: int, status: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code
        self.status = status


class NotFound(ApiError):
    """404: it does not exist."""


class Conflict(ApiError):
    """409 ABORTED: somebody else wrote first. Read again, plan again."""


class Unreachable(UsageError):
    """Nothing answers at the address: nothing was sent."""


class Google:
    """Google's APIs as one environment reaches them.

    Args:
        pipeline: says endpoint and credentials.
        dry_run: refuse everything but reads (I10).
        token: an access token that takes the place of the environment's credentials.
    """

    def __init__(
        self, pipeline: Pipeline, *, dry_run: bool = False, token: str | None = None
    ) -> None:
        self._token = token
        self.endpoint = pipeline.endpoint
        self.dry_run = dry_run
        self.wrote = False
        self.quota_project: str | None = None
        self.http = requests.Session()
        self.http.headers["User-Agent"] = "shipway"
        self._wanted = pipeline.environment.credentials
        self._project = pipeline.environment.project
        self._credentials: Any = None

    def url(self, api: str, path: str) -> str:
        """The address of a path of an API.

        Args:
            api: Google's name of it: "run", "logging", …
            path: the path with its leading slash.
        """
        return f"{self.endpoint or f'https://{api}.googleapis.com'}{path}"

    def token(self, url: str) -> str | None:
        """The access token for a request to `url`, or None where none is to be sent.

        It goes over TLS or stays on this machine (I9).

        Raises:
            UsageError: no credentials are to be found, or `url` would carry them in the clear.
        """
        if self._wanted == "none":
            return None
        _check_confidential(url)
        if self._token:
            return self._token
        with _usable_credentials():
            credentials = self._found()
            if not credentials.valid:
                import google.auth.transport.requests

                credentials.refresh(google.auth.transport.requests.Request())
        return str(credentials.token)

    def id_token(self, audience: str, url: str) -> str | None:
        """An ID token for a private service, or None where no credentials are to be sent.

        Args:
            audience: the service's own URL, also where a tag's URL is called.
            url: where it will be sent.

        Raises:
            UsageError: the credentials cannot have one.
            ApiError: the account may not be spoken for.
        """
        if self._wanted == "none":
            return None
        _check_confidential(url)
        from scripts.cloud import id_token

        with _usable_credentials():
            return id_token.make(self._found(), audience, _SCOPE, self._post_as)

    def account(self) -> str | None:
        """Whose the credentials are: an e-mail, or None where there are none or nobody tells.

        Raises:
            UsageError: there are none to be found, or they are refused.
        """
        url = self.url("oauth2", "/tokeninfo")
        token = self.token(url)
        if token is None:
            return None
        email = getattr(self._found(), "service_account_email", None)
        if not email or email == "default":
            # In the body, where no log has it (I9).
            sent = {"access_token": token}
            try:
                answer = self.http.post(url, data=sent, timeout=10).json()
            except (requests.exceptions.RequestException, ValueError):
                return None
            email = answer.get("email") if isinstance(answer, dict) else None
        return str(email) if email else None

    def _found(self) -> Any:
        """Application Default Credentials, found once."""
        import google.auth

        if self._credentials is None:
            # Named already: google-auth would ask Google for the project of federated credentials,
            # at an address of its own, wherever the endpoint is.
            os.environ.setdefault("GOOGLE_CLOUD_PROJECT", self._project)
            self._credentials, _ = google.auth.default(scopes=[_SCOPE])
            _check_account(self._credentials)
        return self._credentials

    def _quota_project(self) -> str | None:
        """The project whose quota a person's requests count against, if the person named one.

        Some of Google's APIs answer a person only then; service accounts have their own. To name a
        project takes a permission there, so that only `bootstrap` names one that nobody named.
        Source: https://cloud.google.com/docs/quotas/quota-project
        """
        if self._credentials is None:
            return None
        # Imported here: where no credentials are sent, nothing waits for the library.
        from google.oauth2.credentials import Credentials

        if not isinstance(self._credentials, Credentials):
            return None
        return self._credentials.quota_project_id or self.quota_project

    def _post_as(self, url: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        _check_confidential(url)
        return self._send("POST", url, token=token, json=body)

    def get(self, api: str, path: str, **params: str | int | list[str]) -> dict[str, Any]:
        """Read. Tried again when the answer says that this may help."""
        return self._send("GET", self.url(api, path), params=params)

    def query(self, api: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """A read that Google makes with POST, such as Cloud Logging's entries.list."""
        return self._send("POST", self.url(api, path), json=body)

    def write(
        self, method: str, api: str, path: str, body: dict[str, Any], **params: str
    ) -> dict[str, Any]:
        """Write, once: whoever calls reads again before a second try.

        Raises:
            Conflict: somebody else wrote first.
            ApiError: any other refusal.
        """
        if self.dry_run and params.get("dryRun") != "all":
            raise AssertionError(f"a dry run was about to {method} {path}")
        answer = self._send(method, self.url(api, path), json=body, params=params, attempts=1)
        self.wrote = True
        return answer

    def _send(
        self,
        method: str,
        url: str,
        *,
        attempts: int = _ATTEMPTS,
        token: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        token = token or self.token(url)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if quota := self._quota_project():
            headers["X-Goog-User-Project"] = quota
        for attempt in range(1, attempts + 1):
            try:
                response = self.http.request(method, url, headers=headers, timeout=60, **kwargs)
            except requests.exceptions.ConnectionError as error:
                # At the start nobody answers; in the middle somebody may only be restarting.
                if self.wrote and attempt < attempts:
                    time.sleep(0.25 * 2**attempt)
                    continue
                silent = unreachable(url, error)
                raise Failed(silent.message, silent.hint) if self.wrote else silent from None
            except requests.exceptions.RequestException as error:
                raise Failed(f"{method} {url}: {type(error).__name__}: {error}") from None
            if response.status_code in _RETRIED and attempt < attempts:
                time.sleep(0.25 * 2**attempt)
                continue
            break
        if response.ok:
            answer: dict[str, Any] = response.json() if response.content else {}
            return answer
        raise _refusal(response)


def is_confidential(url: str) -> bool:
    """Whether what is sent to `url` is read by nobody else: over TLS, or on this machine (I9)."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in _LOOPBACK


def _check_confidential(url: str) -> None:
    if not is_confidential(url):
        parts = urlsplit(url)
        raise UsageError(f"{parts.scheme}://{parts.netloc}: credentials go over https only")


def _check_account(credentials: Any) -> None:
    """Of a workflow's credentials: see that they speak as a service account.

    google-github-actions/auth makes them without one where the GitHub variable is empty: they are
    good, and nobody has given them a role.
    """
    import google.auth.external_account as federated

    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    if isinstance(credentials, federated.Credentials) and not credentials.service_account_email:
        raise UsageError(
            "this job's credentials name no service account",
            "set the GitHub variable that it has from its workflow: DEPLOYER in the job's"
            " environment, PUSHER in the repository",
        )


@contextmanager
def _usable_credentials() -> Iterator[None]:
    """Say it in one line when there are no credentials, or they are refused."""
    import google.auth.exceptions

    try:
        yield
    except google.auth.exceptions.GoogleAuthError as error:
        reason = _reason(error)
        hint = "on a laptop: gcloud auth application-default login"
        if "attribute condition" in reason:
            hint = "only workflows of this repository's main branch get in: docs/security.md"
        raise UsageError(f"no usable Google credentials: {reason}", hint) from None


def _reason(error: Exception) -> str:
    """What google-auth says, and Google's own message from the answer that goes with it."""
    said = str(error.args[0]) if error.args else type(error).__name__
    try:
        answered = json.loads(error.args[1])["error"]["message"]
    except (IndexError, KeyError, TypeError, ValueError):
        return said
    return f"{said}: {answered}"


def unreachable(url: str, error: Exception) -> Unreachable:
    """Nothing answers: said with the host, and with what usually mends it."""
    parts = urlsplit(url)
    if parts.hostname in _LOOPBACK:
        return Unreachable(
            f"the local Cloud Run does not answer at {parts.scheme}://{parts.netloc}",
            f"start it in another terminal: ./ship up --port {parts.port or 80}",
        )
    reason = str(getattr(error.args[0], "reason", error) if error.args else error)
    # Without the library's own name of the connection.
    reason = reason.partition("): ")[2] or reason
    return Unreachable(f"{parts.netloc} does not answer: {reason}", "is the network up?")


def _refusal(response: requests.Response) -> ApiError | Refused:
    try:
        error = response.json()["error"]
        status, message = error.get("status", ""), error.get("message", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        status, message = "", response.text[:500]
    code = response.status_code
    if code == 404 and not status:
        parts = urlsplit(response.request.url or "")
        return ApiError(
            code, status, f"{parts.scheme}://{parts.netloc} answers, but is no API of Google's: 404"
        )
    if code == 404:
        return NotFound(code, status, message)
    if code == 409 and status in ("ABORTED", ""):
        return Conflict(code, status, message)
    path = urlsplit(response.request.url or "").path
    return ApiError(code, status, f"{response.request.method} {path}: {code} {status}: {message}")
