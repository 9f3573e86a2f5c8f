"""Smoke checks: requests to a revision's own URL, and the answers that they expect."""

from __future__ import annotations

import codecs
import json
import re
import threading
import time
from collections.abc import Callable
from http.client import HTTPException, RemoteDisconnected
from typing import Any

import msgspec
import requests
import urllib3

from scripts.config.formats import Check
from scripts.config.pipelines import seconds

# A new tag's URL takes a moment to work; until then Google's front end answers with these.
_NOT_ROUTED = (404, 429, 502, 503, 504)
_ROUTING_SECONDS = 15.0
_HICCUP_SECONDS = 2.0
_TELL_SECONDS = 1.0
_MOST = 1024 * 1024
"""The most bytes that are read of a body, unpacked."""
_SLOW_CODECS = ("idna", "punycode")
"""Codecs of Python's that take quadratic time, and are for names, not for bodies."""
_CHUNK = 64 * 1024
USER_AGENT = "shipway-smoke"
"""By which the request log tells checks from users' requests."""
_SHOWN = 200
"""The most characters of one thing that an outcome repeats from an answer."""
_NO_ANSWER = (404, 429)
"""Statuses below 500 that do not show that the service works.

Cloud Run itself answers 429 while it has no instance for a request.
Source: https://cloud.google.com/run/docs/troubleshooting#429
"""
# Source: https://cloud.google.com/run/docs/troubleshooting#unauthorized-client, and the page itself
_REFUSED = re.compile(rb"<h1>Error: (Forbidden|Unauthorized)</h1>")
# Source: https://cloud.google.com/iap/docs/query-parameters-and-headers-howto
_FROM_IAP = "X-Goog-IAP-Generated-Response"
_LINES_FOR_COMMIT = [
    "if the Dockerfile does not pass the commit on, add to its last stage:",
    "  ARG COMMIT_SHA",
    "  ENV COMMIT_SHA=$COMMIT_SHA",
]
Tell = Callable[[str], None]
"""Takes what is being waited for; called often."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one check went.

    Attributes:
        name: the check's title.
        ok: whether the answer was as expected.
        took: how long the last attempt took, in seconds.
        problem: what was not as expected.
        evidence: the answer's status line and the start of its body.
    """

    name: str
    ok: bool
    took: float
    problem: str = ""
    evidence: list[str] = []


def run(
    url: str,
    checks: list[Check],
    commit: str,
    token: str | None = None,
    tell: Tell = lambda _: None,
) -> list[Outcome]:
    """Run every check even after a failure, so that one report shows them all.

    Args:
        url: the tagged revision's own URL.
        checks: the requests and what is expected of them.
        commit: the commit that the answer must name; "" to leave that out.
        token: an ID token for a private service. No outcome contains it, whatever the answer (I9).
        tell: takes the progress.
    """

    def tell_safely(text: str) -> None:
        tell(without(token, text))

    with _Session() as http:
        http.headers["User-Agent"] = USER_AGENT
        http.headers["Accept-Encoding"] = "identity"
        if token:
            # Leaves the Authorization header to checks that send their own.
            # Source: https://cloud.google.com/run/docs/authenticating/service-to-service
            http.headers["X-Serverless-Authorization"] = f"Bearer {token}"
        patience = _ROUTING_SECONDS
        outcomes = []
        for check in checks:
            outcome, answered = _attempts(http, url, check, commit, patience, tell_safely)
            problem = without(token, outcome.problem)
            evidence = [without(token, line) for line in outcome.evidence]
            outcomes.append(msgspec.structs.replace(outcome, problem=problem, evidence=evidence))
            if answered:
                patience = _HICCUP_SECONDS
        return outcomes


class _Session(requests.Session):
    """A session to which a redirect is an answer like any other."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target: for one, requests reads the whole body and parses the location."""


def without(token: str | None, text: str) -> str:
    """Return a text without the token, in case the service echoed or logged it."""
    if not token:
        return text
    # The text may end in the middle of it. The signed part begins after the first dot.
    head, body = token.split(".", 2)[:2]
    signed = rf"{re.escape(head)}[\w.-]*|{re.escape(body[:12])}[\w.-]*"
    return re.sub(signed, "(token)", text)


def _attempts(
    http: _Session, url: str, check: Check, commit: str, patience: float, tell: Tell
) -> tuple[Outcome, bool]:
    """Try again while the answer may only mean that the URL does not work yet.

    Returns:
        The last outcome, and whether the service itself has answered.
    """
    deadline = time.monotonic() + patience
    pause = 0.1
    while True:
        outcome, status = _once(http, url, check, commit, tell)
        answered = status is not None and (outcome.ok or status not in _NOT_ROUTED)
        if answered or time.monotonic() + pause > deadline:
            return outcome, answered
        tell(f"{check.title}: {outcome.problem}; trying again")
        time.sleep(pause)
        pause *= 2


def _once(
    http: _Session, url: str, check: Check, commit: str, tell: Tell
) -> tuple[Outcome, int | None]:
    attempt = _Attempt(http, url, check, commit)
    started = time.monotonic()
    in_time = attempt.run(seconds(check.expect.within), tell)
    took = time.monotonic() - started
    late = f"no complete answer within {check.expect.within}"
    problem = attempt.problem if in_time else late
    return (
        Outcome(
            name=check.title,
            ok=not problem,
            took=took,
            problem=problem,
            evidence=attempt.evidence() if problem else [],
        ),
        attempt.status if in_time else 0,
    )


class _Attempt:
    """One request, and as much of its answer as has come.

    The revision is not trusted. It may answer a byte at a time, without end, or with what takes
    long to parse. So a thread does all of it, and the caller gives up on the thread in time. A
    thread that was given up ends at its next read, or with the program.

    Attributes:
        problem: what is not as expected; "" where everything is.
        status: the answer's; 0 where something came that is not an answer; None without any.
    """

    def __init__(self, session: _Session, url: str, check: Check, commit: str) -> None:
        self.problem = "the check ended without a result"
        self.status: int | None = None
        self._session = session
        self._url = url.rstrip("/") + check.path
        self._check = check
        self._commit = commit
        self._reason = ""
        self._body = bytearray()
        self._advice: list[str] = []
        self._ended = threading.Event()
        self._given_up = False

    def run(self, limit: float, tell: Tell) -> bool:
        """Make the request; return whether it ended within the limit, in seconds."""
        deadline = time.monotonic() + limit
        threading.Thread(target=self._make, args=(limit,), daemon=True).start()
        left = limit
        while left > 0 and not self._ended.wait(min(left, _TELL_SECONDS)):
            tell(f"{self._check.title}: no answer yet")
            left = deadline - time.monotonic()
        self._given_up = not self._ended.is_set()
        return not self._given_up

    def evidence(self) -> list[str]:
        """Return the answer's status line, the start of its body, and what may fix it."""
        if not self.status:
            return []
        method = self._check.method
        head = f"{method} {self._url} -> {self.status} {_short(self._reason)}"
        body = bytes(self._body[:1600]).decode(errors="replace")
        return [head, *body[:400].splitlines()[:5], *self._advice]

    def _make(self, limit: float) -> None:
        try:
            self.problem = self._ask(limit)
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            self.status = self.status or 0
            self.problem = f"no complete answer within {self._check.expect.within}"
        except requests.exceptions.ConnectionError as error:
            broken = _not_http(error)
            self.status = 0 if broken else None
            lost = f"no answer: {type(error).__name__}"
            self.problem = f"the answer is not HTTP: {broken}" if broken else lost
        except Exception as error:
            # Any other: the answer is the revision's, so whatever it causes is its failure.
            self.status = self.status or 0
            reason = _short(str(error))
            self.problem = f"the answer cannot be read: {type(error).__name__}: {reason}"
        finally:
            self._ended.set()

    def _ask(self, limit: float) -> str:
        check = self._check
        with self._session.request(
            check.method,
            self._url,
            headers=check.headers,
            data=check.body.encode() if check.body is not None else None,
            timeout=limit,
            allow_redirects=False,
            stream=True,
        ) as answer:
            self._reason = str(answer.reason)
            self.status = answer.status_code
            while data := answer.raw.read1(_CHUNK, decode_content=True):
                self._body += data
                if len(self._body) > _MOST or self._given_up:
                    break
            body = bytes(self._body)
            problem = _problem(answer, body, check, self._commit)
            if problem and _lacks_commit(body, check):
                self._advice = _LINES_FOR_COMMIT
            return problem


def _not_http(error: requests.exceptions.ConnectionError) -> str:
    """Return why an answer is not HTTP; "" if there was none, such as a lost connection."""
    cause: Any = error.args[0] if error.args else None
    cause = cause.args[-1] if isinstance(cause, urllib3.exceptions.ProtocolError) else None
    lost = isinstance(cause, RemoteDisconnected)
    if lost or not isinstance(cause, HTTPException):
        return ""
    return _short(str(cause) or type(cause).__name__)


def _short(text: str) -> str:
    """Return the start of a text. Only its end is cut: see `_without`."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _problem(answer: requests.Response, body: bytes, check: Check, commit: str) -> str:
    """Return what is not as expected; "" if everything is."""
    expect = check.expect
    status = answer.status_code
    if status in (401, 403) and _REFUSED.search(body[:1000]):
        return f"status {status} from Cloud Run, not from the service: the caller may not invoke it"
    if _FROM_IAP in answer.headers:
        return f"status {status} from Identity-Aware Proxy, not from the service"
    if expect.status == "any":
        if status in _NO_ANSWER or status >= 500:
            return f"status {status}, expected any but 404, 429 and 5xx"
    elif status != expect.status:
        return f"status {status}, expected {expect.status}"
    for header, value in expect.headers.items():
        found = answer.headers.get(header)
        if found != value:
            return f"header {header} is {_short(repr(found))}, expected {value!r}"
    wanted = {**expect.json, **({expect.commit: commit} if expect.commit and commit else {})}
    if len(body) > _MOST and (wanted or expect.text is not None):
        return f"the body is larger than {_MOST} bytes, the most that a check compares"
    if expect.text is not None:
        charset = _charset(answer)
        try:
            found = _decoded(body, charset)
        except (LookupError, ValueError):
            return f"the body's charset {_short(repr(charset))} is unknown"
        if expect.text not in found:
            return f"the text {expect.text!r} is not in the body"
    if wanted:
        try:
            document = json.loads(body, object_pairs_hook=_object, parse_constant=_no_constant)
        except ValueError as error:
            return f"the body is not JSON: {_short(str(error))}"
        except RecursionError:
            return "the body is not JSON: it is nested too deeply"
        for path, value in wanted.items():
            found = _field(document, path)
            if found != value:
                return f"field {path} is {_short(repr(found))}, expected {value!r}"
    return ""


def _lacks_commit(body: bytes, check: Check) -> bool:
    """Return whether the commit in an answer is none, such as the "unknown" of a default."""
    if not check.expect.commit or len(body) > _MOST:
        return False
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    found = _field(document, check.expect.commit)
    return found is None or not re.fullmatch("[0-9a-f]{40}", str(found))


def _charset(answer: requests.Response) -> str:
    """Return the charset that an answer names, or UTF-8.

    Where none is named, requests takes Latin-1 for HTML and guesses for the rest.
    """
    kind = answer.headers.get("Content-Type", "")
    named = re.search(r"""charset\s*=\s*["']?([^"';\s]+)""", kind, re.IGNORECASE)
    return named[1] if named else "utf-8"


def _decoded(body: bytes, charset: str) -> str:
    if codecs.lookup(charset).name in _SLOW_CODECS:
        raise LookupError(charset)
    return body.decode(charset, "replace")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of a JSON document; a key that comes twice would have two meanings."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key!r} comes twice")
        made[key] = value
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _field(body: Any, path: str) -> Any:
    """Return a field of a JSON document by its dotted path; None if it is missing."""
    for step in path.split("."):
        if isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        elif isinstance(body, dict):
            body = body.get(step)
        else:
            return None
    return body
