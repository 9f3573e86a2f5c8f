"""A service as it was read, with the state of its releases. Pure.

Shipway stores this state on the service itself, in annotations `shipway/…`. They change in the same
write as the traffic that they describe.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from scripts.release import manifest, traffic
from scripts.release.manifest import Object
from scripts.release.traffic import Target

CANDIDATE = "shipway/candidate"
KNOWN_GOOD = "shipway/known-good"
HOLD = "shipway/hold"
LOG = "shipway/log"
OPERATION = "shipway/operation"
"""The ID of the last write. It tells whether a write whose answer was lost was done."""


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
        return f"{self.name} (by {self.by}, {self.at}{f': {self.why}' if self.why else ''})"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A service as it was read, with the state of its releases."""

    where: str
    """What to type after a verb to mean this service: "app --env staging"."""
    service: Object
    revisions: dict[str, Object]
    """Name → revision, newest first: those that were read with the service."""
    ready: frozenset[str]
    """Names of the revisions that are Ready."""
    ours: frozenset[str]
    """Names of the revisions that Shipway made; other tools may have deployed the rest."""
    targets: list[Target]
    """The traffic in force, every revision by name."""
    candidate: str | None
    known_good: list[str]
    """Revisions that Shipway gave 100 % and no one rolled back from, newest first."""
    hold: Hold | None
    log: list[Event]
    commits: dict[str, str]
    """Revision → the commit in its label."""
    newer: frozenset[str] = frozenset()
    """Serving revisions, and the candidate, whose commits are newer than the one being released."""
    unknown: frozenset[str] = frozenset()
    """Revisions that the service uses, but that were not read: they may be Ready or not."""

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
        """The revision that gets the traffic that a candidate does not get.

        The newest known good revision that serves, the candidate included: a good commit may be
        delivered again. Where none is known to be good, other tools' revisions come before those
        that Shipway made; among them, the one with the greatest share. Only a Ready revision
        counts. None: nothing serves yet.
        """
        serving = [name for name in self.shares if name in self.ready]
        known = [name for name in self.known_good if name in serving]
        rest = [name for name in serving if name != self.candidate] or serving
        rest = [name for name in rest if name not in self.ours] or rest
        return next(iter(known), None) or max(rest, key=self.shares.__getitem__, default=None)

    @property
    def status(self) -> Object:
        """The service's status; {} before Cloud Run has written one."""
        status: Object = self.service.get("status") or {}
        return status

    @property
    def url(self) -> str:
        """The service's own URL; "" before it has one."""
        return str(self.status.get("url") or "")

    def tag_of(self, revision: str) -> str | None:
        """Return the first tag of a revision, or None."""
        tags = traffic.tags(self.targets).items()
        return next((tag for tag, name in tags if name == revision), None)

    def url_of(self, revision: str) -> str | None:
        """Return the URL of a revision's tag as status lists it, or None while it does not."""
        tag = self.tag_of(revision)
        for target in self.status.get("traffic") or []:
            if target.get("tag") == tag and target.get("revisionName") == revision:
                return str(target["url"]) if target.get("url") else None
        return None

    def trusts(self, revision: str) -> bool:
        """Return whether a revision may get all traffic without smoke checks (I4).

        It may where it is known to be good, or where another tool deployed it and it serves now.
        """
        return revision in self.known_good or (
            revision in self.shares and revision not in self.ours
        )


def to_builtins(value: Event | Hold | None) -> Any:
    """Convert an event or a hold for JSON."""
    return msgspec.to_builtins(value)


def read_state(
    service: Object,
    revisions: list[Object],
    where: str,
    *,
    gone: Collection[str] = (),
    is_newer: Callable[[str], bool] = lambda _: False,
) -> State:
    """Make the state of a service from what the API answered.

    Args:
        service: the Knative Service.
        revisions: its Knative Revisions, newest first.
        where: what to type after a verb to mean this service.
        gone: names of revisions that do not exist. One that is neither read nor gone is unknown.
        is_newer: whether a commit (full SHA) is newer than the one being released.
    """
    annotations = service["metadata"].get("annotations") or {}
    status = service.get("status") or {}
    targets = traffic.pin(
        service["spec"].get("traffic") or [],
        status.get("traffic") or [],
        status.get("latestReadyRevisionName"),
    )
    by_name = {r["metadata"]["name"]: r for r in revisions}
    commits = {name: c for name, r in by_name.items() if (c := manifest.commit_of(r))}
    candidate = annotations.get(CANDIDATE)
    known_good = _decode(annotations.get(KNOWN_GOOD), list[str], [])

    def can_serve(name: str) -> bool:
        return not has_failed(by_name[name]) if name in by_name else name not in gone

    # One target that cannot serve makes Cloud Run refuse the whole plan (RevisionFailed). A tag of
    # Shipway's on a revision that never started must not block a rollback.
    targets = [
        t for t in targets if can_serve(t["revisionName"]) or not manifest.is_own(t.get("tag"))
    ]
    in_use = {*traffic.shares(targets), candidate}
    return State(
        where=where,
        service=service,
        revisions=by_name,
        ready=frozenset(r["metadata"]["name"] for r in revisions if is_ready(r)),
        ours=frozenset(r["metadata"]["name"] for r in revisions if manifest.is_managed(r)),
        targets=targets,
        candidate=candidate,
        known_good=known_good,
        hold=_decode(annotations.get(HOLD), Hold | None, None),
        log=_decode(annotations.get(LOG), list[Event], []),
        commits=commits,
        newer=frozenset(n for n, commit in commits.items() if n in in_use and is_newer(commit)),
        unknown=frozenset(revisions_in_use(service) | set(known_good)) - {*by_name, *gone},
    )


def revisions_in_use(service: Object, *, tagged: bool = True) -> set[str]:
    """Return the names of the candidate and of the revisions with traffic or, if asked, a tag."""
    annotations = service["metadata"].get("annotations") or {}
    targets = [
        *(service["spec"].get("traffic") or []),
        *((service.get("status") or {}).get("traffic") or []),
    ]
    names = {target.get("revisionName") for target in targets if tagged or target.get("percent")}
    return {name for name in {*names, annotations.get(CANDIDATE)} if name}


def revisions_that_matter(service: Object) -> set[str]:
    """Return the names of the revisions that decisions depend on, except tagged ones."""
    annotations = service["metadata"].get("annotations") or {}
    latest = (service.get("status") or {}).get("latestReadyRevisionName")
    known_good = _decode(annotations.get(KNOWN_GOOD), list[str], [])
    return {*revisions_in_use(service, tagged=False), *known_good, *([latest] if latest else [])}


def _decode(text: str | None, type_: Any, default: Any) -> Any:
    """Decode an annotation's JSON. A hold that cannot be parsed stays in force, as "unreadable"."""
    if not text:
        return default
    try:
        return msgspec.json.decode(text, type=type_)
    except msgspec.MsgspecError:
        if type_ == Hold | None:
            return Hold(name="unreadable", at="?", by="?", why=f"annotation {HOLD}: {text[:80]}")
        return default


def operation_of(service: Object) -> str:
    """Return the ID of the last write of Shipway's; "" if there is none."""
    return str((service["metadata"].get("annotations") or {}).get(OPERATION, ""))


def is_ready(resource: Object) -> bool:
    """Return whether a service's or revision's Ready condition is True."""
    return condition(resource).get("status") == "True"


def has_failed(resource: Object) -> bool:
    """Return whether a service's or revision's Ready condition is False, which is final."""
    return condition(resource).get("status") == "False"


def condition(resource: Object, kind: str = "Ready") -> dict[str, str]:
    """Return one condition: {"type", "status", "reason", "message"}, or {} if missing."""
    conditions = (resource.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def is_finished(state: State, revision: str) -> bool:
    """Return whether a revision's rollout is over: it has all traffic and is known to be good."""
    return state.shares == {revision: 100} and state.known_good[:1] == [revision]


def previous(state: State) -> str | None:
    """Return the revision that a rollback without --to goes to, or None.

    While several revisions serve, it is the stable one. When one serves alone, it is the newest
    known good one before it.
    """
    if len(state.shares) > 1 and state.stable and state.trusts(state.stable):
        return state.stable
    return next((n for n in state.known_good if n in state.ready and n not in state.shares), None)


def describe(state: State, name: str, revision: Object, back: str | None) -> str:
    """Describe a revision's role for a release manager, in a word or two.

    Args:
        state: the service as read.
        name: the revision's name.
        revision: the revision.
        back: the revision that a rollback goes to (`previous`).
    """
    if has_failed(revision):
        return "failed to start"
    if name == state.candidate and not is_finished(state, name):
        return "candidate"
    if name in state.shares:
        return "serving" if name == state.stable else "left over"
    if name == back:
        return "rollback target"
    return "known good" if name in state.known_good else ""
