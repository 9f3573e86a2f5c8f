"""A service as it was read, with what Shipway remembers of it. Pure.

Everything that is remembered is on the service itself, in annotations `shipway/…`, and changes in
the same write as the traffic that it tells of.
"""

from __future__ import annotations

from typing import Any

import msgspec

from scripts.release import manifest, traffic
from scripts.release.manifest import Object
from scripts.release.traffic import Target

CANDIDATE = "shipway/candidate"
KNOWN_GOOD = "shipway/known-good"
HOLD = "shipway/hold"
LOG = "shipway/log"


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line of a service's history: who did what to which revision, when and why."""

    at: str
    """RFC 3339, UTC."""
    verb: str
    by: str
    revision: str = ""
    percent: int | None = None
    why: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """No traffic may increase until it is released, or overridden by its name (I7)."""

    name: str
    at: str
    by: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} (by {self.by}, {self.at}{f': {self.why}' if self.why else ''})"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A service as it was read, with what Shipway remembers of it."""

    where: str
    """What to type after a verb to mean this service: "app --env staging"."""
    service: Object
    ready: frozenset[str]
    """Names of the revisions that are Ready."""
    ours: frozenset[str]
    """Names of the revisions that Shipway made: others may have served well before it came."""
    targets: list[Target]
    """The traffic in force, every revision by name."""
    candidate: str | None
    known_good: list[str]
    """Revisions that served 100 % through Shipway and were not rolled back from, newest first."""
    hold: Hold | None
    log: list[Event]
    commits: dict[str, str]
    """Revision → the commit that it was built from, of those that say one."""

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.service["metadata"]["name"])

    @property
    def shares(self) -> traffic.Shares:
        """Revision → percent."""
        return traffic.shares(self.targets)

    @property
    def stable(self) -> str | None:
        """The revision that the rest of the traffic goes to beside a candidate.

        The newest known good revision that serves, the candidate included: a good commit may be
        delivered again. Where none is known, what others deployed comes before what Shipway made
        and never found good; of those, the one with the greatest share. Only a Ready revision
        counts. None: nothing serves yet.
        """
        serving = [name for name in self.shares if name in self.ready]
        known = [name for name in self.known_good if name in serving]
        rest = [name for name in serving if name != self.candidate] or serving
        rest = [name for name in rest if name not in self.ours] or rest
        return next(iter(known), None) or max(rest, key=self.shares.__getitem__, default=None)

    def trusts(self, revision: str) -> bool:
        """Whether a revision may be given all traffic unchecked (I4).

        Known to be good, or deployed by others and serving now.
        """
        return revision in self.known_good or (
            revision in self.shares and revision not in self.ours
        )


def to_builtins(value: Event | Hold | None) -> Any:
    """An event or a hold as JSON takes it."""
    return msgspec.to_builtins(value)


def read_state(service: Object, revisions: list[Object], where: str) -> State:
    """Read a service and its revisions.

    Args:
        service: the Knative Service as the API answered.
        revisions: its Knative Revisions.
        where: what to type after a verb to mean this service.
    """
    annotations = service["metadata"].get("annotations") or {}
    status = service.get("status") or {}
    targets = traffic.pinned(
        service["spec"].get("traffic") or [],
        status.get("traffic") or [],
        status.get("latestReadyRevisionName"),
    )
    # A target that cannot serve keeps the whole plan from being taken (Knative's RevisionFailed):
    # a tag of ours on a revision that never started must not stand in the way of a rollback.
    alive = {r["metadata"]["name"] for r in revisions if not has_failed(r)}
    return State(
        where=where,
        service=service,
        ready=frozenset(r["metadata"]["name"] for r in revisions if is_ready(r)),
        ours=frozenset(r["metadata"]["name"] for r in revisions if manifest.is_managed(r)),
        targets=[
            t for t in targets if t["revisionName"] in alive or not manifest.is_own(t.get("tag"))
        ],
        candidate=annotations.get(CANDIDATE),
        known_good=_decode(annotations.get(KNOWN_GOOD), list[str], []),
        hold=_decode(annotations.get(HOLD), Hold | None, None),
        log=_decode(annotations.get(LOG), list[Event], []),
        commits={r["metadata"]["name"]: c for r in revisions if (c := manifest.commit_of(r))},
    )


def revisions_named(service: Object) -> set[str]:
    """The revisions that a service's traffic, tags and memory name."""
    annotations = service["metadata"].get("annotations") or {}
    status = service.get("status") or {}
    targets = [*(service["spec"].get("traffic") or []), *(status.get("traffic") or [])]
    named = {target.get("revisionName") for target in targets}
    named |= {annotations.get(CANDIDATE), status.get("latestReadyRevisionName")}
    named |= set(_decode(annotations.get(KNOWN_GOOD), list[str], []))
    return {name for name in named if name}


def _decode(text: str | None, type_: Any, default: Any) -> Any:
    """An annotation's JSON; what others broke counts as a hold that nobody can name away."""
    if not text:
        return default
    try:
        return msgspec.json.decode(text, type=type_)
    except msgspec.MsgspecError:
        if type_ == Hold | None:
            return Hold(name="unreadable", at="?", by="?", why=f"annotation {HOLD}: {text[:80]}")
        return default


def is_ready(resource: Object) -> bool:
    """Whether a service's or revision's Ready condition is True."""
    return condition(resource).get("status") == "True"


def has_failed(resource: Object) -> bool:
    """Whether a service's or revision's Ready condition is False: it will not become Ready."""
    return condition(resource).get("status") == "False"


def condition(resource: Object, kind: str = "Ready") -> dict[str, str]:
    """One condition of a resource: {"type", "status", "reason", "message"}, {} where missing."""
    conditions = (resource.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def finished(state: State, revision: str) -> bool:
    """Whether a revision's rollout is over: it serves everything and is known to be good."""
    return state.shares == {revision: 100} and state.known_good[:1] == [revision]


def previous(state: State) -> str | None:
    """The revision that a rollback goes to when nobody names one; None where there is none.

    While several revisions serve, that is the stable one; when one serves alone, the newest known
    good one before it.
    """
    if len(state.shares) > 1 and state.stable and state.trusts(state.stable):
        return state.stable
    return next((n for n in state.known_good if n in state.ready and n not in state.shares), None)
