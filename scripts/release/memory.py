"""What Shipway stores on a service: annotations `shipway/…`. Pure.

They change in the same write as the traffic that they describe. Together they stay far below the
256 KiB that Kubernetes allows for all annotations of an object. Cloud Run names no other limit.
Source: `TotalAnnotationSizeLimitB` in k8s.io/apimachinery/pkg/api/validation/objectmeta.go, and the
discovery document `run.v2`: a service's annotations follow Kubernetes' limits and rules.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from scripts.release.manifest import Object

T = TypeVar("T")

CANDIDATE = "shipway/candidate"
KNOWN_GOOD = "shipway/known-good"
HOLD = "shipway/hold"
LOG = "shipway/log"
IN_PROGRESS = "shipway/in-progress"
FAILED = "shipway/failed"
OPERATION = "shipway/operation"
"""The ID of the last write, by which a write whose answer was lost is recognized."""

_LOG_KEPT = 30
_LOG_BYTES = 64 * 1024
_WHY = 500  # characters; --reason takes fewer, errors may be longer
_BY = 100


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line of a service's history: what was done to which revision, when, why and by whom."""

    at: str
    """RFC 3339, UTC."""
    verb: str
    by: str
    revision: str = ""
    percent: int | None = None
    why: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A stop: no traffic may increase until it is released or overridden by name (I7)."""

    name: str
    at: str
    by: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} {_told(self.by, self.at, self.why)}"


class InProgress(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A step that has begun and was not seen to end.

    The write that moves the traffic sets it, and a small write removes it after the last check.
    Where it is left, the command was interrupted, or still runs.
    """

    verb: str
    """"rollout" or "promote"."""
    revision: str
    start: int = msgspec.field(name="from")
    """The revision's share before the step."""
    to: int
    """Its share after the step."""
    by: str
    at: str
    until: str = ""
    """When the command that watches the step ends at the latest (RFC 3339); "" if none does."""

    def __str__(self) -> str:
        step = f"{self.verb} of {self.revision} from {self.start} % to {self.to} %"
        return f"{step} {_told(self.by, self.at)}"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The last release failed, and its traffic was moved back."""

    revision: str
    at: str
    by: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.revision} {_told(self.by, self.at, self.why)}"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that Shipway stores on a service."""

    candidate: str | None
    known_good: list[str]
    """Revisions that Shipway gave 100 % and no one rolled back from, newest first."""
    hold: Hold | None
    log: list[Event]
    in_progress: InProgress | None
    """A step that has begun and was not seen to end."""
    failure: Failure | None
    """The last release, if it failed."""


def read(service: Object) -> Memory:
    """Read a service's annotations. One that cannot be parsed is ignored, but for a hold.

    A hold that cannot be parsed stays in force, under the name "unreadable".
    """
    found = service["metadata"].get("annotations") or {}
    hold = _decode(found.get(HOLD), Hold)
    if hold is None and found.get(HOLD) not in (None, "", "null"):
        text = f"annotation {HOLD}: {found[HOLD][:80]}"
        hold = Hold(name="unreadable", at="?", by="?", why=text)
    return Memory(
        candidate=found.get(CANDIDATE),
        known_good=_decode(found.get(KNOWN_GOOD), list[str]) or [],
        hold=hold,
        log=_decode(found.get(LOG), list[Event]) or [],
        in_progress=_decode(found.get(IN_PROGRESS), InProgress),
        failure=_decode(found.get(FAILED), Failure),
    )


def _decode(text: str | None, type_: type[T]) -> T | None:
    """Decode an annotation's JSON; None if it is missing or cannot be parsed."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=type_)
    except msgspec.MsgspecError:
        return None


def encode(value: Hold | InProgress | Failure | list[str]) -> str:
    """Encode a value for an annotation."""
    return msgspec.json.encode(value).decode()


def encode_log(log: list[Event]) -> str:
    """Encode the history: the last 30 events, and at most 64 KiB.

    The last change of traffic is always kept, whatever came after it: a rollback that is typed
    again reads there that it is done.
    """
    moved = [event for event in log if event.percent is not None][-1:]
    kept = log[-_LOG_KEPT:]
    if moved and moved[0] not in kept:
        kept = moved + kept[1:]
    while len(text := msgspec.json.encode(kept)) > _LOG_BYTES:
        del kept[1 if moved and kept[0] is moved[0] else 0]
    return text.decode()


def to_builtins(value: Event | Hold | InProgress | Failure | None) -> Any:
    """Convert a value for JSON."""
    return msgspec.to_builtins(value)


def short_event(event: Event) -> Event:
    """Return an event whose texts have a limited length."""
    return msgspec.structs.replace(event, by=_short(event.by, _BY), why=_short(event.why, _WHY))


def _told(by: str, at: str, why: str = "") -> str:
    """Return by whom, when and why, in brackets. Other tools may have stored long texts."""
    reason = f": {_short(why, _WHY)}" if why else ""
    return f"(by {_short(by, _BY)}, {_short(at, _BY)}{reason})"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
