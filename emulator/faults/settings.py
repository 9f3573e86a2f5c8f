"""The settings of each fault: the keys of `/_local/faults` and of `./ship up --fault`.

This is the one table of faults. `docs/local-cloud-run.md` explains it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from emulator.errors import invalid

_MOST_SECONDS = 1e9


class Fault(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A fault without settings of its own: an error of Google's that has a name."""

    name: str


class Quota(Fault):
    """Each request to an API is over its quota."""

    service: str = "run.googleapis.com"


class Clock(Fault):
    """Google's clock is ahead of this machine's, according to the Date header."""

    seconds: float = 600.0


class RevisionFault(Fault):
    """A fault of revisions.

    Attributes:
        revision: The pattern of their names.
        seconds: How long the fault takes to act.
    """

    revision: str = "*"
    seconds: float = 5.0


class CallFault(
    Fault, rename={"start": "from", "retry_after": "retry-after"}, omit_defaults=True, kw_only=True
):
    """A fault of single calls.

    Attributes:
        method: The pattern of their methods.
        path: The pattern of their paths, with or without the query.
        api: The pattern of the API's short name, such as `run` or `artifactregistry`.
        start: The first call that it strikes, counted from 1 among those that match.
        times: How many calls it strikes; 0 for all.
        every: It strikes each call, each second one, …
        spread: Whether, after its first strike, it counts every call, whatever it is.
        done: Whether the call is done nevertheless, before its answer is spoiled.
        code: The HTTP status of the answer; by default 503 for `status` and 200 for others.
        retry_after: The answer's header Retry-After, in seconds.
        seconds: How long it takes.
    """

    method: str = "*"
    path: str = "*"
    api: str = "*"
    start: int = 1
    times: int = 0
    every: int = 1
    spread: bool = False
    done: bool = False
    code: int = 0
    retry_after: int | None = None
    seconds: float = 5.0

    def matches(self, method: str, path: str, api: str) -> bool:
        """Return whether a call is one of those that the fault counts; `path` has the query."""
        paths = {path, path.partition("?")[0]}
        return (
            fnmatchcase(method, self.method)
            and any(fnmatchcase(one, self.path) for one in paths)
            and fnmatchcase(api, self.api)
        )


class Upload(CallFault):
    """A registry that loses uploads."""

    method: str = "PATCH"
    path: str = "/v2/*/blobs/uploads/*"


QUOTA, DOMAINS, INVOKER = "quota-exceeded", "org-policy-domains", "org-policy-invoker"
BILLING, TOKEN, CLOCK = "no-billing", "token-exchange", "clock-skew"

KINDS: Mapping[str, type[Fault]] = {
    QUOTA: Quota,
    DOMAINS: Fault,
    INVOKER: Fault,
    BILLING: Fault,
    TOKEN: Fault,
    CLOCK: Clock,
    "status": CallFault,
    "reset": CallFault,
    "lost": CallFault,
    "cut": CallFault,
    "html": CallFault,
    "empty": CallFault,
    "no-fields": CallFault,
    "stale": CallFault,
    "slow": CallFault,
    "trickle": CallFault,
    "hang": CallFault,
    "drop-upload": Upload,
    "revision-slow": RevisionFault,
    "revision-never-ready": RevisionFault,
    "revision-crashes": RevisionFault,
}


def from_document(document: Mapping[str, Any], *, strict: bool = True) -> Fault:
    """Read a fault's settings.

    Args:
        document: The keys and values.
        strict: Whether numbers have to be numbers. Otherwise text is read as one.

    Raises:
        ApiError: INVALID_ARGUMENT; a name, key or value is wrong.
    """
    kind = KINDS.get(str(document.get("name")))
    if kind is None:
        raise invalid(f"Expected one of {', '.join(KINDS)}.", "name")
    try:
        fault = msgspec.convert(dict(document), kind, strict=strict)
    except msgspec.ValidationError as error:
        raise invalid(f"{document['name']}: {error}.") from None
    _check(fault)
    return fault


def from_text(text: str) -> Fault:
    """Read `NAME[,KEY=VALUE]…`, such as `status,code=429,method=PUT,times=1`.

    Raises:
        ApiError: INVALID_ARGUMENT; a name, key or value is wrong.
    """
    name, *pairs = text.split(",")
    document: dict[str, str] = {"name": name}
    for pair in pairs:
        key, is_pair, value = pair.partition("=")
        if not is_pair:
            raise invalid(f"'{pair}' is not KEY=VALUE.")
        document[key] = value
    return from_document(document, strict=False)


def _check(fault: Fault) -> None:
    seconds = getattr(fault, "seconds", 0.0)
    if not abs(seconds) < _MOST_SECONDS:
        raise invalid("Expected a number of seconds.", "seconds")
    if not isinstance(fault, CallFault):
        return
    if fault.start < 1 or fault.every < 1 or fault.times < 0:
        raise invalid("Expected from and every to be 1 or more, and times to be 0 or more.")
    if fault.code and not re.fullmatch(r"[2-5]\d\d", str(fault.code)):
        raise invalid("Expected an HTTP status from 200 to 599.", "code")
