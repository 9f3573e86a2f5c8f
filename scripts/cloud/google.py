"""Requests to Google's APIs, or to a stand-in: credentials, retries, typed errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from scripts.cloud import answers
from scripts.cloud.credentials import SCOPE, Credentials, check_confidential, usable
from scripts.cloud.local_identity import OWNER, LocalIdentity, is_member
from scripts.cloud.patience import Patience
from scripts.cloud.session import LOOPBACK, Session, Sessions, reason, retry_after, was_sent
from scripts.config import formats, running
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, ShipError, Unknown, UsageError
from scripts.ledger import Write, may_have_written

_MAY_BE_DONE = (408, *range(500, 600))
"""The errors that may come after a write was done."""

_SAME_CLOCK_SECONDS = 5.0

Document = dict[str, Any]


class ApiError(Failed):
    """An API refused a request.

    Attributes:
        code: the HTTP status.
        status: Google's name for the error, such as NOT_FOUND.
        after: the seconds that it asks to wait before another try; None if it does not say.
    """

    after: float | None = None

    def __init__(self, code: int, status: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code
        self.status = status


class NotFound(ApiError):
    """404: it does not exist."""


class Conflict(ApiError):
    """409 ABORTED: someone else wrote first. Read again, plan again."""


class NoAnswer(Failed):
    """A server does not answer, and something may have been written before."""


class Unreachable(UsageError):
    """No server answers at the address: nothing was sent."""


class Google:
    """Google's APIs as one environment reaches them.

    Args:
        pipeline: names endpoint and credentials.
        dry_run: refuse everything except reads (I10).
        token: an access token to use instead of the environment's credentials.
        writes: where each write is recorded (`writes`).
        patience: how long it keeps trying while servers do not answer as they should.

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
        patience: Patience | None = None,
    ) -> None:
        self.writes = [] if writes is None else writes
        self._pipeline = pipeline
        self.dry_run = dry_run
        self.quota_project: str | None = None
        self.patience = patience or Patience()
        self._sessions = Sessions(self.patience, self._check_checkout)
        self._ahead = 0.0
        environment = pipeline.environment
        self.credentials = Credentials(
            environment.credentials, environment.project, self.patience, token
        )

    @cached_property
    def endpoint(self) -> str | None:
        """The address to use instead of Google's, if any.

        Raises:
            NotUp: as `Pipeline.endpoint`.
            UsageError: there is none, and the environment's project is not chosen yet.
        """
        pipeline = self._pipeline
        if pipeline.at_google and not formats.is_chosen(pipeline.environment.project):
            file = f"pipelines/{pipeline.service}/{pipeline.env}.yaml"
            raise UsageError(
                f"{pipeline.env} has no project yet: {file}",
                f"./ship init --project {pipeline.env}=ID",
            )
        return pipeline.endpoint

    @cached_property
    def _local(self) -> LocalIdentity | None:
        """Whom requests to the local Cloud Run of the checkout are from; None: no one, or not it.

        Where it enforces IAM and the environment names no one, that is its owner.
        """
        pipeline = self._pipeline
        named = pipeline.environment.credentials
        if not is_member(named) and (named != "none" or not pipeline.uses_up):
            return None
        local = running.find(pipeline.checkout)
        if local is None or local.url != self.endpoint:
            return None
        if is_member(named):
            return LocalIdentity(local, named)
        return LocalIdentity(local, OWNER) if local.iam == running.ENFORCE else None

    def _check_checkout(self, answer: requests.Response, *_: object, **__: object) -> None:
        """Refuse an answer of the local Cloud Run of another checkout."""
        folder = unquote(answer.headers.get("Shipway-Checkout", ""))
        own = str(self._pipeline.checkout.resolve())
        if folder not in ("", own) and self._pipeline.belongs:
            raise running.of_another(str(self.endpoint), folder)

    @property
    def http(self) -> Session:
        """The calling thread's HTTP session."""
        return self._sessions.own()

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
            self._sessions.leave()

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
        """Return the access token for a request to `url`, as `Credentials.token` does."""
        return self._local.token() if self._local else self.credentials.token(url)

    def newer_token(self, url: str, refused: str) -> str | None:
        """Return a newer token than a refused one, as `Credentials.newer_token` does."""
        return self.credentials.newer_token(url, refused)

    def id_token(self, audience: str, url: str) -> str | None:
        """Make an ID token for a private service; None if requests carry no credentials.

        Args:
            audience: the service's own URL, even for calls to a tag's URL.
            url: the address that it is sent to.

        Raises:
            UsageError: these credentials cannot have one.
            ApiError: the caller may not act as the account.
        """
        if self._local:
            return self._local.id_token(audience)
        if self.credentials.none:
            return None
        check_confidential(url)
        from scripts.cloud import id_token

        with usable():
            session = Session(self.patience, repeatable=True)
            return id_token.make(self.credentials.find(), audience, SCOPE, session, self._post_as)

    def account(self) -> str | None:
        """Return the e-mail of the account that the credentials belong to, or None if unknown.

        Raises:
            UsageError: there are no credentials, or they are refused.
        """
        if self._local:
            return self._local.member.partition(":")[2]
        url = self.url("oauth2", "/tokeninfo")
        token = self.token(url)
        if token is None:
            return None
        email = getattr(self.credentials.find(), "service_account_email", None)
        if not email or email == "default":
            # In the body, which no server logs (I9).
            sent = {"access_token": token}
            try:
                answer = self.http.request("POST", url, data=sent, repeatable=True)
                found = answers.document(answer, "Google", answers.TokenInfo)
            except (requests.exceptions.RequestException, answers.BadAnswer):
                return None
            email = found.get("email")
        return str(email) if email else None

    def _post_as(self, url: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        check_confidential(url)
        return self._read("POST", "iamcredentials", url, answers.IdToken, token=token, json=body)

    def get(
        self, api: str, path: str, shape: Any = Document, **params: str | int | list[str]
    ) -> Document:
        """Read; try again after an error that may be temporary.

        Args:
            api: its name at Google.
            path: the path.
            shape: the type that the answer must have, one of `answers`.
            params: the query.

        Raises:
            NotFound: it does not exist.
            ApiError: any other refusal.
            BadAnswer: the answer is not the JSON that was asked for.
            Unreachable: there is no answer, and nothing was written before.
            NoAnswer: there is no answer.
        """
        return self._read("GET", api, self.url(api, path), shape, params=params)

    def query(self, api: str, path: str, body: Document | None, shape: Any = Document) -> Document:
        """Read with POST, as Cloud Logging's entries.list does; otherwise as `get`."""
        return self._read("POST", api, self.url(api, path), shape, json=body)

    def write(
        self,
        method: str,
        api: str,
        path: str,
        body: Document,
        *,
        shape: Any = Document,
        what: str = "",
        operation: str = "",
        repeatable: bool = False,
        params: Mapping[str, str] | None = None,
    ) -> Document:
        """Write, and record it in `writes`.

        Args:
            method: the HTTP method.
            api: its name at Google.
            path: the path.
            body: what to write.
            shape: as for `get`.
            what: what is written, in human-readable form; the path unless given.
            operation: the ID that marks the write.
            repeatable: whether a second write has the same effect as one. Others are sent again
                only if the server certainly did not do them.
            params: the query.

        Raises:
            Conflict: someone else wrote first.
            ApiError: any other refusal: it was not done.
            Unknown: its answer was lost, or is an error that may come after the deed.
        """
        if (params or {}).get("dryRun") == "all":  # it is only validated
            return self._read(method, api, self.url(api, path), shape, json=body, params=params)
        return self._write(
            method, api, path, shape, what or path, operation,
            repeatable=repeatable, json=body, params=params,
        )  # fmt: skip

    def upload(
        self, path: str, contents: bytes, shape: Any, *, what: str, params: Mapping[str, str]
    ) -> Document:
        """Upload an object to Cloud Storage, and record it in `writes`; otherwise as `write`.

        Args:
            path: the path of the upload.
            contents: the object's bytes.
            shape: as for `get`.
            what: what is uploaded, in human-readable form.
            params: the query. It must make a second upload of the same object an error.
        """
        return self._write(
            "POST", "storage", path, shape, what, "",
            repeatable=True, data=contents, params=params,
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip

    def content(self, api: str, path: str, *, start: int) -> bytes:
        """Read an object's bytes from `start` on; none if it has no more, or does not exist yet.

        Args:
            api: the API's name at Google.
            path: the object's path.
            start: how many bytes to leave out.

        Raises:
            ApiError, Unreachable, NoAnswer: as for `get`.
        """
        url = self.url(api, path)
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
        try:
            answer = self._send(
                "GET", api, url, repeatable=True, params={"alt": "media"}, headers=headers
            )
        except requests.exceptions.RequestException as error:
            raise no_answer(url, error, self.writes) from None
        if answer.status_code in (404, 416):
            return b""
        if not answer.ok:
            raise _refusal(answer, answers.service(api))
        # A server may ignore the range.
        return answer.content if answer.status_code == 206 else answer.content[start:]

    def _write(
        self, method: str, api: str, path: str, shape: Any, what: str, operation: str,
        **options: Any,
    ) -> Document:  # fmt: skip
        url = self.url(api, path)
        if self.dry_run:
            raise AssertionError(f"a dry run was about to {method} {path}")
        write = Write(
            what=what, request=f"{method} {urlsplit(url).netloc}{path}", operation=operation
        )
        self.writes.append(write)
        try:
            answer = self._send(method, api, url, **options)
            if not answer.ok:
                raise _refusal(answer, answers.service(api))
            done = answers.document(answer, answers.service(api), shape)
        except requests.exceptions.RequestException as error:
            if was_sent(error):
                silent = unreachable(url, error)
                raise _unknown(write, silent.message) from silent
            write.outcome = "refused"
            raise no_answer(url, error, self.writes) from None
        except answers.BadAnswer as error:
            raise _unknown(write, error.message, error.evidence) from error
        except ApiError as error:
            if error.code in _MAY_BE_DONE:
                raise _unknown(write, error.message, error.evidence) from error
            write.outcome = "refused"
            raise
        except Failed:
            write.outcome = "refused"  # redirected
            raise
        write.outcome = "done"
        return done

    def _read(self, method: str, api: str, url: str, shape: Any, **options: Any) -> Document:
        name = answers.service(api)
        try:
            answer = self._send(method, api, url, repeatable=True, **options)
        except requests.exceptions.RequestException as error:
            raise no_answer(url, error, self.writes) from None
        if not answer.ok:
            raise _refusal(answer, name)
        return answers.document(answer, name, shape)

    def _send(
        self,
        method: str,
        api: str,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> requests.Response:
        """Send a request with credentials; with newer ones if they are refused in mid-run."""
        own = token is None
        token = token or self.token(url)
        quota = self.credentials.quota_project(self.quota_project)
        own_headers = {**(headers or {}), **({"X-Goog-User-Project": quota} if quota else {})}

        def send() -> requests.Response:
            bearer = {"Authorization": f"Bearer {token}"} if token else {}
            return self.http.request(
                method, url, headers=own_headers | bearer, service=answers.service(api), **options
            )

        answer = send()
        if answer.status_code == 401 and own and token:
            token = self.newer_token(url, token)
            answer = send() if token else answer
        self._compare_clocks(answer)
        return answer

    def now(self) -> float:
        """Return the time by the clock of the server that answered last, in Unix seconds.

        This machine's own clock may be minutes off, and what a server measured has its times.
        """
        return time.time() - self._ahead

    def _compare_clocks(self, answer: requests.Response) -> None:
        with suppress(ValueError, TypeError):
            date = parsedate_to_datetime(answer.headers.get("Date", ""))
            ahead = time.time() - date.timestamp()
            # Dates have whole seconds, and an answer is under way for a while.
            self._ahead = ahead if abs(ahead) > _SAME_CLOCK_SECONDS else 0.0


def unreachable(url: str, error: Exception) -> Unreachable:
    """Make the error for a server that does not answer, with its host and the usual fix."""
    parts = urlsplit(url)
    if isinstance(error, requests.exceptions.RequestException) and was_sent(error):
        return Unreachable(f"{parts.netloc} {reason(error)}: {parts.path}", "try again")
    if parts.hostname in LOOPBACK:
        return Unreachable(
            f"the local Cloud Run does not answer at {parts.scheme}://{parts.netloc}",
            f"start it in another terminal: ./ship up --port {parts.port or 80}",
        )
    text = str(getattr(error.args[0], "reason", error) if error.args else error)
    # Without the library's own name for the connection.
    text = text.partition("): ")[2] or text
    return Unreachable(f"{parts.netloc} does not answer: {text}", "check the network")


def no_answer(url: str, error: Exception, writes: Iterable[Write]) -> ShipError:
    """Make the error for a server that does not answer; "nothing was sent" only where it is so."""
    silent = unreachable(url, error)
    return NoAnswer(silent.message, silent.hint) if may_have_written(writes) else silent


def _unknown(write: Write, reason: str, evidence: list[str] | None = None) -> Unknown:
    return Unknown(
        f"{write.what}: it is not known whether the write was done: {reason}",
        "run the same command again: it continues where it stopped",
        evidence=evidence,
    )


def _refusal(answer: requests.Response, service: str) -> ApiError:
    """Make the error that an answer reports, with what it asks to wait."""
    error = _refused(answer, service)
    error.after = retry_after(answer)
    return error


def _refused(answer: requests.Response, service: str) -> ApiError:
    code = answer.status_code
    parts = urlsplit(answer.request.url or "")
    asked = f"{answer.request.method} {parts.path}"
    try:
        error = answers.document(answer, service, answers.Refusal)["error"]
        status, message = error.get("status", ""), error.get("message", "")
    except answers.BadAnswer as bad:
        if code == 404:
            return ApiError(
                code,
                "",
                f"{parts.scheme}://{parts.netloc} answers, but it is not a Google API: 404",
            )
        refused = ApiError(code, "", f"{service}: {asked}: {code}; {bad.message}")
        refused.evidence = bad.evidence
        return refused
    if code == 404 and (status or "errors" in error):  # Cloud Storage's errors have no status
        return NotFound(code, status, message)
    if code == 409 and status in ("ABORTED", ""):
        return Conflict(code, status, message)
    return ApiError(code, status, f"{asked}: {f'{code} {status}'.rstrip()}: {message}")
