"""Requests to Google's APIs, or to a stand-in: credentials, retries, typed errors."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

from scripts.cloud.session import Session
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, UsageError
from scripts.ledger import Write, may_have_written

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
    """409 ABORTED: someone else wrote first. Read again, plan again."""


class Unreachable(UsageError):
    """No server answers at the address: nothing was sent."""


class Google:
    """Google's APIs as one environment reaches them.

    Args:
        pipeline: names endpoint and credentials.
        dry_run: refuse everything except reads (I10).
        token: an access token to use instead of the environment's credentials.
        writes: where each write is recorded (`writes`).

    Attributes:
        writes: every write that was sent through this object, and how each one ended.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        dry_run: bool = False,
        token: str | None = None,
        writes: list[Write] | None = None,
    ) -> None:
        self._token = token
        self.writes = [] if writes is None else writes
        self.endpoint = pipeline.endpoint
        self.dry_run = dry_run
        self.quota_project: str | None = None
        self._own = threading.local()  # .session: the calling thread's
        self._idle: list[requests.Session] = []
        self._credentials_lock = threading.Lock()
        self._wanted = pipeline.environment.credentials
        self._project = pipeline.environment.project
        self._credentials: Any = None

    @property
    def http(self) -> requests.Session:
        """The calling thread's HTTP session: requests makes no promise about sharing one."""
        if not hasattr(self._own, "session"):
            try:
                self._own.session = self._idle.pop()
            except IndexError:
                self._own.session = Session()
                self._own.session.headers["User-Agent"] = "shipway"
        session: requests.Session = self._own.session
        return session

    def at_once(self, *calls: Callable[[], Any]) -> list[Any]:
        """Make several reads at the same time: one round trip instead of one for each.

        Args:
            calls: functions that read through this object. The first runs in this thread.

        Returns:
            What each returned, in the same order.

        Raises:
            Exception: what the first of them that failed raised.
        """
        results: list[Any] = [None] * len(calls)
        errors: dict[int, Exception] = {}

        def make(number: int) -> None:
            try:
                results[number] = calls[number]()
            except Exception as error:
                errors[number] = error

        def make_apart(number: int) -> None:
            make(number)
            if hasattr(self._own, "session"):
                self._idle.append(self._own.session)  # its connection serves the next one

        threads = [
            threading.Thread(target=make_apart, args=(number,), daemon=True)
            for number in range(1, len(calls))
        ]
        for thread in threads:
            thread.start()
        make(0)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[min(errors)]
        return results

    def url(self, api: str, path: str) -> str:
        """Return the address of a path of an API.

        Args:
            api: its name at Google: "run", "logging", …
            path: the path with its leading slash.
        """
        return f"{self.endpoint or f'https://{api}.googleapis.com'}{path}"

    def token(self, url: str) -> str | None:
        """Return the access token for a request to `url`; None if requests carry none.

        It travels over TLS only, or stays on this machine (I9).

        Raises:
            UsageError: there are no credentials, or `url` would carry them in the clear.
        """
        if self._wanted == "none":
            return None
        _check_confidential(url)
        if self._token:
            return self._token
        with self._credentials_lock, _usable_credentials():
            credentials = self._found()
            if not credentials.valid:
                import google.auth.transport.requests

                credentials.refresh(google.auth.transport.requests.Request(Session()))
        return str(credentials.token)

    def id_token(self, audience: str, url: str) -> str | None:
        """Make an ID token for a private service; None if requests carry no credentials.

        Args:
            audience: the service's own URL, even for calls to a tag's URL.
            url: the address that it is sent to.

        Raises:
            UsageError: these credentials cannot have one.
            ApiError: the caller may not act as the account.
        """
        if self._wanted == "none":
            return None
        _check_confidential(url)
        from scripts.cloud import id_token

        with _usable_credentials():
            return id_token.make(self._found(), audience, _SCOPE, self._post_as)

    def account(self) -> str | None:
        """Return the e-mail of the account that the credentials belong to, or None if unknown.

        Raises:
            UsageError: there are no credentials, or they are refused.
        """
        url = self.url("oauth2", "/tokeninfo")
        token = self.token(url)
        if token is None:
            return None
        email = getattr(self._found(), "service_account_email", None)
        if not email or email == "default":
            # In the body, which no server logs (I9).
            sent = {"access_token": token}
            try:
                answer = self.http.post(url, data=sent, timeout=10).json()
            except (requests.exceptions.RequestException, ValueError):
                return None
            email = answer.get("email") if isinstance(answer, dict) else None
        return str(email) if email else None

    def _found(self) -> Any:
        """Find Application Default Credentials, once."""
        import google.auth

        if self._credentials is None:
            # Otherwise google-auth asks Google for the project of federated credentials, whatever
            # the endpoint is.
            os.environ.setdefault("GOOGLE_CLOUD_PROJECT", self._project)
            credentials, _ = google.auth.default(scopes=[_SCOPE])
            _check_account(credentials)
            self._credentials = credentials
        return self._credentials

    def _quota_project(self) -> str | None:
        """Return the project whose quota a user's requests count against, if one is named.

        Some of Google's APIs require one from a user; service accounts have their own. Naming a
        project takes a permission in it, so only `bootstrap` names one by itself.
        Source: https://cloud.google.com/docs/quotas/quota-project
        """
        if self._credentials is None:
            return None
        # Imported here: calls without credentials do not wait for the library.
        from google.oauth2.credentials import Credentials

        if not isinstance(self._credentials, Credentials):
            return None
        return self._credentials.quota_project_id or self.quota_project

    def _post_as(self, url: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        _check_confidential(url)
        return self._send("POST", url, token=token, json=body)

    def get(self, api: str, path: str, **params: str | int | list[str]) -> dict[str, Any]:
        """Read; try again after an error that may be temporary."""
        return self._send("GET", self.url(api, path), params=params)

    def query(self, api: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Read with POST, as Cloud Logging's entries.list does."""
        return self._send("POST", self.url(api, path), json=body)

    def write(
        self, method: str, api: str, path: str, body: dict[str, Any], **params: str
    ) -> dict[str, Any]:
        """Write, once: the caller reads again before a second try.

        Raises:
            Conflict: someone else wrote first.
            ApiError: any other refusal.
        """
        if self.dry_run and params.get("dryRun") != "all":
            raise AssertionError(f"a dry run was about to {method} {path}")
        url = self.url(api, path)
        write = Write(what=path, request=f"{method} {urlsplit(url).netloc}{path}")
        self.writes.append(write)
        answer = self._send(method, url, json=body, params=params, attempts=1)
        write.outcome = "done"
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
                # Before any write the address may be wrong; after one the server may be restarting.
                if may_have_written(self.writes) and attempt < attempts:
                    time.sleep(0.25 * 2**attempt)
                    continue
                silent = unreachable(url, error)
                if may_have_written(self.writes):
                    raise Failed(silent.message, silent.hint) from None
                raise silent from None
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
    """Return whether no one can read what is sent to `url`: over TLS, or on this machine (I9)."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in _LOOPBACK


def _check_confidential(url: str) -> None:
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
def _usable_credentials() -> Iterator[None]:
    """Turn missing or refused credentials into one clear error."""
    import google.auth.exceptions

    try:
        yield
    except google.auth.exceptions.GoogleAuthError as error:
        reason = _reason(error)
        hint = "on a laptop: gcloud auth application-default login"
        if "attribute condition" in reason:
            hint = "only workflows on this repository's main branch are accepted: docs/security.md"
        raise UsageError(f"no usable Google credentials: {reason}", hint) from None


def _reason(error: Exception) -> str:
    """Return google-auth's message, and Google's own from the answer that goes with it."""
    message = str(error.args[0]) if error.args else type(error).__name__
    try:
        answered = json.loads(error.args[1])["error"]["message"]
    except (IndexError, KeyError, TypeError, ValueError):
        return message
    return f"{message}: {answered}"


def unreachable(url: str, error: Exception) -> Unreachable:
    """Make the error for a server that does not answer, with its host and the usual fix."""
    parts = urlsplit(url)
    if parts.hostname in _LOOPBACK:
        return Unreachable(
            f"the local Cloud Run does not answer at {parts.scheme}://{parts.netloc}",
            f"start it in another terminal: ./ship up --port {parts.port or 80}",
        )
    reason = str(getattr(error.args[0], "reason", error) if error.args else error)
    # Without the library's own name for the connection.
    reason = reason.partition("): ")[2] or reason
    return Unreachable(f"{parts.netloc} does not answer: {reason}", "check the network")


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
            code,
            status,
            f"{parts.scheme}://{parts.netloc} answers, but it is not a Google API: 404",
        )
    if code == 404:
        return NotFound(code, status, message)
    if code == 409 and status in ("ABORTED", ""):
        return Conflict(code, status, message)
    path = urlsplit(response.request.url or "").path
    return ApiError(code, status, f"{response.request.method} {path}: {code} {status}: {message}")
