"""The HTTP session for requests that carry credentials: timeouts, retries, and no redirects."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ConnectTimeout,
    ContentDecodingError,
    ProxyError,
    ReadTimeout,
    RequestException,
    SSLError,
    Timeout,
)

from scripts.cloud.patience import Patience, Trouble
from scripts.errors import Failed

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TEMPORARY = (408, 429, 500, 502, 503, 504)
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 10.0
_WHOLE_SECONDS = 30.0  # an answer that comes byte by byte ends, too
_PIECE = 1 << 16
LARGEST = 64 << 20  # bytes of an answer; a list of 1,000 revisions has some 5 MB
_TEMPORARY_ERRORS = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)


class Session(requests.Session):
    """A session that tries again what may be repeated, and that follows no redirect.

    requests removes the Authorization header before it follows one to another host, but sends a
    token in a body again.

    Args:
        patience: how long it keeps trying.
        repeatable: whether every request may be sent twice: for tokens, which POST gets.
    """

    def __init__(self, patience: Patience, *, repeatable: bool = False) -> None:
        super().__init__()
        self.patience = patience
        self._repeatable = repeatable
        self._settings: dict[str, Any] = {}

    def merge_environment_settings(  # type: ignore[override]  # requests has no types of its own
        self, url: str, *own: Any
    ) -> Any:
        """Return the proxies and certificates for a host, which the environment names.

        requests reads the whole environment again for each request.
        """
        place = f"{urlsplit(url)[:2]}{own}"
        if place not in self._settings:
            self._settings[place] = super().merge_environment_settings(url, *own)
        return self._settings[place]

    def request(  # type: ignore[override]  # more options than requests has
        self,
        method: str,
        url: str,
        *,
        repeatable: bool | None = None,
        service: str = "",
        restarts: bool = False,
        timeout: float | tuple[float, float] | None = None,
        largest: int = LARGEST,
        **options: Any,
    ) -> requests.Response:
        """Send a request. Try again after an error that may pass.

        Without `repeatable`, only what the server certainly did not do is sent again: it was not
        connected, or it answers 429.

        Args:
            method: the HTTP method.
            url: the address.
            repeatable: whether it may be done twice; as GET and HEAD unless given.
            service: its name for people; the host unless given.
            restarts: whether the caller starts again from an earlier request: raises Trouble.
            timeout: the seconds to connect, and between two pieces of the answer.
            largest: the bytes of an answer that are read at most.
            options: as for requests.

        Raises:
            RequestException: there is no answer, or half of one. `was_sent` tells more.
            TooLarge: the answer has more bytes than `largest`.
            Trouble: it failed for a reason that may pass; only if the caller restarts.
        """
        parts = urlsplit(url)
        again = repeatable if repeatable is not None else self._repeatable
        again = again or restarts or method in ("GET", "HEAD")
        name = service or parts.netloc

        def attempt() -> requests.Response:
            try:
                answer = super(Session, self).request(
                    method, url, timeout=self._timeout(timeout), stream=True, **options
                )
                seconds = self.patience.try_seconds(_WHOLE_SECONDS)
                _read(answer, time.monotonic() + seconds, largest)
            except RequestException as error:
                if (again or not was_sent(error)) and self._may_pass(error, url):
                    raise Trouble(f"{name} {reason(error)}", _Ended(error)) from None
                raise
            self.patience.answered.add(parts.netloc)
            code = answer.status_code
            if code == 429 or (again and code in TEMPORARY):
                raise Trouble(f"{name} answers {code}", lambda: answer, retry_after(answer))
            return answer

        return attempt() if restarts else self.patience.persist(attempt)

    def _timeout(self, wanted: float | tuple[float, float] | None) -> tuple[float, float]:
        connect, read = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        return (
            self.patience.try_seconds(min(connect or _CONNECT_SECONDS, _CONNECT_SECONDS)),
            self.patience.try_seconds(
                read if isinstance(wanted, tuple) and read else min(read or 60, _READ_SECONDS)
            ),
        )

    def _may_pass(self, error: RequestException, url: str) -> bool:
        """Return whether an error may pass by itself.

        On this machine, a server that has never answered and refuses connections does not run.
        """
        parts = urlsplit(url)
        if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            return False
        if parts.hostname in LOOPBACK and parts.netloc not in self.patience.answered:
            return was_sent(error) and isinstance(error, _TEMPORARY_ERRORS)
        return isinstance(error, _TEMPORARY_ERRORS)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request; a redirect is an error unless the caller passes `allow_redirects=False`.

        Raises:
            Failed: the answer is a redirect.
        """
        follow = kwargs.pop("allow_redirects", True)
        answer = super().send(request, allow_redirects=False, **kwargs)
        if follow and answer.is_redirect:
            raise redirected(answer)
        return answer


class TooLarge(Failed):
    """An answer has more bytes than are read of it."""


def _read(answer: requests.Response, deadline: float, largest: int) -> None:
    """Read the body of an answer, as it comes, until a deadline.

    Raises:
        TooLarge: it has more bytes than `largest`.
        ReadTimeout: the deadline has passed.
        ChunkedEncodingError: the answer was cut.
        ConnectionError: the connection broke.
    """
    pieces, size = [], 0
    try:
        while piece := answer.raw.read1(_PIECE, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if size > largest:
                host = urlsplit(str(answer.request.url)).netloc
                raise TooLarge(
                    f"{host} answers with more than {largest >> 20} MiB: not read further",
                    "check the address: the endpoint in the environment's file, and the proxy",
                )
            if time.monotonic() > deadline:
                raise ReadTimeout(f"the answer is too slow: {len(pieces)} pieces so far")
    except urllib3.exceptions.ReadTimeoutError as error:
        raise ReadTimeout(error) from error
    except urllib3.exceptions.ProtocolError as error:
        raise ChunkedEncodingError(error) from error
    except urllib3.exceptions.DecodeError as error:
        raise ContentDecodingError(error) from error
    except urllib3.exceptions.SSLError as error:
        raise SSLError(error) from error
    finally:
        if not answer.raw.closed and answer.raw.length_remaining:
            answer.raw.close()
    answer.raw.release_conn()
    answer._content = b"".join(pieces)  # what `content` and `json()` return


class Sessions:
    """A session for each thread: requests makes no promise about sharing one.

    Args:
        patience: as for `Session`.
        check: raises an error for an answer that is not to be used.
    """

    def __init__(self, patience: Patience, check: Callable[..., None]) -> None:
        self._patience = patience
        self._check = check
        self._own = threading.local()
        self._idle: list[Session] = []

    def own(self) -> Session:
        """Return the calling thread's session."""
        if not hasattr(self._own, "session"):
            try:
                self._own.session = self._idle.pop()
            except IndexError:
                self._own.session = Session(self._patience)
                self._own.session.headers["User-Agent"] = "shipway"
                self._own.session.hooks["response"].append(self._check)
        session: Session = self._own.session
        return session

    def leave(self) -> None:
        """Give the thread's session to the next thread, which uses its connections."""
        if hasattr(self._own, "session"):
            self._idle.append(self._own.session)


class _Ended:
    """The end of a try that failed: raises its error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self) -> requests.Response:
        raise self._error


def was_sent(error: RequestException) -> bool:
    """Return whether the server may have got the request: False if there was no connection."""
    if isinstance(error, ConnectTimeout | ProxyError):
        return False
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return not isinstance(reason, urllib3.exceptions.NewConnectionError) and isinstance(
        error, _TEMPORARY_ERRORS
    )


def reason(error: RequestException) -> str:
    """Return why there is no answer, as the end of a sentence."""
    if isinstance(error, ChunkedEncodingError | ContentDecodingError):
        return "sent half an answer"
    if not was_sent(error):
        return "cannot be reached"
    return "does not answer" if isinstance(error, Timeout) else "closed the connection"


def retry_after(answer: requests.Response) -> float | None:
    """Return the seconds that an answer asks to wait: it names them, or a date."""
    wanted = answer.headers.get("Retry-After")
    if not wanted:
        return None
    try:
        return float(urllib3.Retry().parse_retry_after(wanted))
    except (urllib3.exceptions.InvalidHeader, OverflowError):
        return None


def redirected(answer: requests.Response) -> Failed:
    """Make the error for an answer that redirects a request with credentials."""
    answer.close()
    asked = urlsplit(str(answer.request.url))
    return Failed(
        f"{asked.scheme}://{asked.netloc} redirects {answer.request.method} {asked.path} to"
        f" {answer.headers['Location'][:200]}: a request with credentials follows no redirect",
        "check the address: the endpoint in the environment's file, and the proxy",
    )
