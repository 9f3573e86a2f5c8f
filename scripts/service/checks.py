"""Smoke checks: requests to a revision's own URL, and the answers that they expect."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import requests

from scripts.config.formats import Check
from scripts.config.pipelines import seconds

# A new tag's URL takes a moment to work; until then Google's front end answers with these.
_NOT_ROUTED = (404, 429, 502, 503, 504)
_ROUTING_SECONDS = 15.0
_HICCUP_SECONDS = 2.0


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


def run(url: str, checks: list[Check], commit: str, token: str | None = None) -> list[Outcome]:
    """Run every check even after a failure, so that one report shows them all.

    Args:
        url: the tagged revision's own URL.
        checks: the requests and what is expected of them.
        commit: the commit that the answer must name; "" to leave that out.
        token: an ID token for a private service. No outcome contains it, whatever the answer (I9).
    """
    with requests.Session() as http:
        http.headers["User-Agent"] = "shipway-smoke"
        if token:
            # Leaves the Authorization header to checks that send their own.
            # Source: https://cloud.google.com/run/docs/authenticating/service-to-service
            http.headers["X-Serverless-Authorization"] = f"Bearer {token}"
        patience = _ROUTING_SECONDS
        outcomes = []
        for check in checks:
            outcome, answered = _attempts(http, url, check, commit, patience)
            outcomes.append(_without(token, outcome) if token else outcome)
            if answered:
                patience = _HICCUP_SECONDS
        return outcomes


def _without(token: str, outcome: Outcome) -> Outcome:
    """Return an outcome without the token, in case the service echoed it."""
    # Evidence may end in the middle of it. The signed part begins after the first dot.
    head, body = token.split(".", 2)[:2]
    signed = re.compile(rf"{re.escape(head)}[\w.-]*|{re.escape(body[:12])}[\w.-]*")
    return msgspec.structs.replace(
        outcome,
        problem=signed.sub("(token)", outcome.problem),
        evidence=[signed.sub("(token)", line) for line in outcome.evidence],
    )


def _attempts(
    http: requests.Session, url: str, check: Check, commit: str, patience: float
) -> tuple[Outcome, bool]:
    """Try again while the answer may only mean that the URL does not work yet.

    Returns:
        The last outcome, and whether the service itself has answered.
    """
    deadline = time.monotonic() + patience
    pause = 0.1
    while True:
        outcome, status = _once(http, url, check, commit)
        answered = status is not None and (outcome.ok or status not in _NOT_ROUTED)
        if answered or time.monotonic() + pause > deadline:
            return outcome, answered
        time.sleep(pause)
        pause *= 2


def _once(
    http: requests.Session, url: str, check: Check, commit: str
) -> tuple[Outcome, int | None]:
    limit = seconds(check.expect.within)
    started = time.monotonic()
    try:
        answer = http.request(
            check.method,
            url.rstrip("/") + check.path,
            headers=check.headers,
            data=check.body.encode() if check.body is not None else None,
            timeout=limit,
            allow_redirects=False,
        )
    except requests.exceptions.Timeout:
        problem = f"no answer within {check.expect.within}"
        return Outcome(name=check.title, ok=False, took=limit, problem=problem), 0
    except requests.exceptions.RequestException as error:
        took = time.monotonic() - started
        problem = f"no answer: {type(error).__name__}"
        return Outcome(name=check.title, ok=False, took=took, problem=problem), None
    took = time.monotonic() - started
    problem = _problem(answer, check, commit)
    if not problem and took > limit:
        problem = f"took {took:.1f} s, expected within {check.expect.within}"
    evidence = [] if not problem else _evidence(answer)
    return (
        Outcome(name=check.title, ok=not problem, took=took, problem=problem, evidence=evidence),
        answer.status_code,
    )


def _problem(answer: requests.Response, check: Check, commit: str) -> str:
    """Return what is not as expected; "" if everything is."""
    expect = check.expect
    if answer.status_code != expect.status:
        return f"status {answer.status_code}, expected {expect.status}"
    for header, value in expect.headers.items():
        found = answer.headers.get(header)
        if found != value:
            return f"header {header} is {found!r}, expected {value!r}"
    if expect.text is not None and expect.text not in answer.text:
        return f"the text {expect.text!r} is not in the body"
    if expect.json or (expect.commit and commit):
        try:
            body = answer.json()
        except ValueError:
            return "the body is not JSON"
        wanted = {**expect.json, **({expect.commit: commit} if expect.commit and commit else {})}
        for path, value in wanted.items():
            found = _field(body, path)
            if found != value:
                return f"field {path} is {found!r}, expected {value!r}"
    return ""


def _field(body: Any, path: str) -> Any:
    """Return a field of a JSON document by its dotted path; None if it is missing."""
    for step in path.split("."):
        if isinstance(body, list) and step.isdigit() and int(step) < len(body):
            body = body[int(step)]
        elif isinstance(body, dict):
            body = body.get(step)
        else:
            return None
    return body


def _evidence(answer: requests.Response) -> list[str]:
    head = f"{answer.request.method} {answer.url} -> {answer.status_code} {answer.reason}"
    return [head, *answer.text[:400].splitlines()[:5]]
