"""A service as it was read, with the state of its releases. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from scripts.release import manifest, memory, traffic
from scripts.release.manifest import Object
from scripts.release.memory import Event, InProgress, Memory
from scripts.release.traffic import Target


class State(Memory, frozen=True, kw_only=True):
    """A service as it was read, with what Shipway stores on it."""

    where: str
    """What to type after a verb to mean this service: "app --env staging"."""
    service: Object
    revisions: dict[str, Object]
    """Name → revision, newest first: those that were read with the service."""
    ready: frozenset[str]
    """Names of the revisions that are Ready."""
    ours: frozenset[str]
    """Names of the revisions that Shipway made; other tools may have deployed the rest."""
    unknown: frozenset[str]
    """Revisions in use that were not read, although they may exist: nothing is known of them."""
    targets: list[Target]
    """The traffic that was asked for, every revision by name."""
    commits: dict[str, str]
    """Revision → the commit in its label."""
    newer: frozenset[str] = frozenset()
    """Serving revisions, and the candidate, whose commits are newer than the one being released."""

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.service["metadata"]["name"])

    @property
    def shares(self) -> traffic.Shares:
        """Revision → percent, as it was asked for."""
        return traffic.shares(self.targets)

    @property
    def served(self) -> traffic.Shares:
        """Revision → percent, as Cloud Run reports it in force."""
        return traffic.shares(self.status.get("traffic") or [])

    @property
    def in_force(self) -> bool:
        """Whether users get the shares that were asked for."""
        return self.served == self.shares

    @property
    def not_taken(self) -> str:
        """Why Cloud Run has not taken the traffic that was asked for, in its own words."""
        for kind in ("RoutesReady", "Ready", "ConfigurationsReady"):
            found = condition(self.service, kind)
            if found.get("status") != "True" and (found.get("message") or found.get("reason")):
                return str(found.get("message") or found.get("reason"))
        return "it gives no reason; it may still be working on it"

    def left(self, revision: str | None, verb: str | None = None) -> InProgress | None:
        """Return the step of a revision that has begun and was not seen to end, or None."""
        step = self.in_progress
        if step is None or step.revision != revision or verb not in (None, step.verb):
            return None
        return step

    def unwatched(self, now: str) -> InProgress | None:
        """Return the step that was not seen to end, although it should have by now (RFC 3339)."""
        step = self.in_progress
        return step if step and step.until and step.until < now else None

    @property
    def stable(self) -> str | None:
        """The revision that gets the traffic that a candidate does not get.

        The newest known good revision that serves, the candidate included: a good commit may be
        delivered again. Where none is known to be good, other tools' revisions come before those
        that Shipway made; among them, the one with the greatest share. Only a Ready revision
        counts, or one that was not read. None: nothing serves yet.
        """
        serving = [name for name in self.shares if name in self.ready | self.unknown]
        known = [name for name in self.known_good if name in serving]
        rest = [name for name in serving if name != self.candidate] or serving
        rest = [name for name in rest if name not in self.ours] or rest
        return next(iter(known), None) or max(rest, key=self.shares.__getitem__, default=None)

    def beside(self, candidate: str) -> str | None:
        """Return the revision that gets the traffic that `candidate` does not get, or None.

        It is the stable one. Where the candidate itself is that, because it was known to be good
        before, it is another one that serves and may get all traffic.
        """
        if self.stable != candidate:
            return self.stable
        others = [n for n in self.shares if n in self.ready and n != candidate and self.trusts(n)]
        return max(others, key=self.shares.__getitem__, default=None)

    def was_given(self, revision: str) -> bool:
        """Return whether a revision's share can be from Shipway, by its last change of traffic."""
        share = self.shares.get(revision, 0)
        for event in reversed(self.log):
            own = event.revision == revision
            if event.percent is not None and (own or event.verb != "failed"):
                rest = 100 - event.percent
                return share == event.percent if own else share in (0, rest)
            if event.verb == "failed" and event.percent is None:
                return share == 0 if own else share in (0, 100)
        return True

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
        """Return a tag of a revision, or None. Shipway's own come first: no one moves those."""
        tags = [tag for tag, name in traffic.tags(self.targets).items() if name == revision]
        return next(iter(sorted(tags, key=lambda tag: not manifest.is_own(tag, revision))), None)

    def url_of(self, revision: str) -> str | None:
        """Return the URL of a revision's tag as status lists it, or None while it does not."""
        tag = self.tag_of(revision)
        return tag_url(self.service, tag, revision) if tag else None

    def trusts(self, revision: str) -> bool:
        """Return whether a revision may get all traffic without smoke checks (I4).

        It may where it is known to be good, or where another tool deployed it and it serves now.
        """
        return revision in self.known_good or (
            revision in self.shares and revision not in self.ours
        )


def read_state(
    service: Object,
    revisions: list[Object],
    where: str,
    *,
    gone: Collection[str] = (),
    is_newer: Callable[[str], bool] = lambda _: False,
) -> State:
    """Make the state of a service from what the API answered.

    A list of revisions may lag behind the service, or be empty by mistake. So a revision that it
    lacks is unknown, and may serve.

    Args:
        service: the Knative Service.
        revisions: its Knative Revisions, newest first.
        where: what to type after a verb to mean this service.
        gone: names of revisions that were asked for by name and do not exist.
        is_newer: whether a commit (full SHA) is newer than the one being released.
    """
    status = service.get("status") or {}
    targets = traffic.pin(
        service["spec"].get("traffic") or [],
        status.get("traffic") or [],
        status.get("latestReadyRevisionName"),
    )
    by_name = {r["metadata"]["name"]: r for r in revisions}
    commits = {name: c for name, r in by_name.items() if (c := manifest.commit_of(r))}
    stored = memory.read(service)

    def cannot_serve(name: str) -> bool:
        return has_failed(by_name[name]) if name in by_name else name in gone

    # One target that cannot serve makes Cloud Run refuse the whole plan (RevisionFailed). A tag of
    # Shipway's on a revision that never started must not block a rollback.
    targets = [t for t in targets if not (is_own(t) and cannot_serve(t["revisionName"]))]
    in_use = {*traffic.shares(targets), stored.candidate}
    used = revisions_in_use(service) | revisions_that_matter(service)
    return State(
        where=where,
        service=service,
        revisions=by_name,
        ready=frozenset(r["metadata"]["name"] for r in revisions if is_ready(r)),
        ours=frozenset(r["metadata"]["name"] for r in revisions if manifest.is_managed(r)),
        unknown=frozenset(used - by_name.keys() - set(gone)),
        targets=targets,
        candidate=stored.candidate,
        known_good=[name for name in stored.known_good if name not in gone],
        hold=stored.hold,
        log=stored.log,
        in_progress=stored.in_progress,
        failure=stored.failure,
        commits=commits,
        newer=frozenset(n for n, commit in commits.items() if n in in_use and is_newer(commit)),
    )


def is_own(target: Target) -> bool:
    """Return whether a target of a traffic plan is a tag of Shipway's."""
    return "tag" in target and manifest.is_own(target["tag"], target["revisionName"])


def drop_spent_tags(service: Object, revisions: Mapping[str, Object]) -> None:
    """Remove Shipway's tags that have done their work, from a service that is about to be written.

    A revision keeps its tag while it serves, is the candidate, failed last, or was deployed or
    tagged and has not been released yet. It also keeps it while it is known to be good, unless it
    has a minimum of instances of its own: Cloud Run starts those for a tag alone. Tags of others
    stay (I8).
    Source: https://docs.cloud.google.com/run/docs/configuring/min-instances, and
    https://docs.cloud.google.com/run/quotas (2,000 tags for a project and region).

    Args:
        service: the service to write, with what is stored on it.
        revisions: name → revision, as read.
    """
    stored = memory.read(service)
    targets = service["spec"]["traffic"]
    last = {event.revision: event.verb for event in stored.log}
    kept = {
        stored.candidate,
        *(name for name in stored.known_good if not _costs(revisions.get(name))),
        *traffic.shares(targets),
        *(one.revision for one in (stored.failure, stored.in_progress) if one),
        *(name for name, verb in last.items() if verb in ("deploy", "tag")),
    }
    service["spec"]["traffic"] = [
        target for target in targets if not is_own(target) or target["revisionName"] in kept
    ]


def _costs(revision: Object | None) -> bool:
    return revision is not None and manifest.own_minimum(revision) > 0


def revisions_in_use(service: Object, *, tagged: bool = True) -> set[str]:
    """Return the names of the candidate and of the revisions with traffic or, if asked, a tag."""
    targets = [
        *(service["spec"].get("traffic") or []),
        *((service.get("status") or {}).get("traffic") or []),
    ]
    names = {target.get("revisionName") for target in targets if tagged or target.get("percent")}
    return {name for name in {*names, memory.read(service).candidate} if name}


def revisions_that_matter(service: Object) -> set[str]:
    """Return the names of the revisions that decisions depend on, except tagged ones."""
    stored = memory.read(service)
    latest = (service.get("status") or {}).get("latestReadyRevisionName")
    failed = stored.failure.revision if stored.failure else None
    others = {name for name in (latest, failed) if name}
    return revisions_in_use(service, tagged=False) | others | {*stored.known_good}


def tag_url(service: Object, tag: str, revision: str) -> str | None:
    """Return the URL of a tag as status lists it; None while it is not this revision's."""
    for target in (service.get("status") or {}).get("traffic") or []:
        if target.get("tag") == tag and target.get("revisionName") == revision:
            return str(target["url"]) if target.get("url") else None
    return None


def operation_of(service: Object) -> str:
    """Return the ID of the last write of Shipway's; "" if there is none."""
    return str((service["metadata"].get("annotations") or {}).get(memory.OPERATION, ""))


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


def warnings(resource: Object) -> list[str]:
    """Return the messages of conditions that warn, and decide nothing.

    Source: the discovery document run.v1, GoogleCloudRunV1Condition (severity).
    """
    conditions = (resource.get("status") or {}).get("conditions") or []
    warn = [one for one in conditions if one.get("severity") == "Warning"]
    return [one["message"] for one in warn if one.get("message")]


def has_everything(state: State, revision: str) -> bool:
    """Return whether a revision has all traffic and is known to be good."""
    return state.shares == {revision: 100} and state.known_good[:1] == [revision]


def is_finished(state: State, revision: str) -> bool:
    """Return whether a revision's release is over: nothing of it is in progress any more."""
    return has_everything(state, revision) and not state.left(revision)


def previous(state: State) -> str | None:
    """Return the revision that a rollback without --to goes to, or None.

    While several revisions serve, it is the stable one. When one serves alone, it is the newest
    known good one before it.
    """
    if len(state.shares) > 1 and state.stable and state.trusts(state.stable):
        return state.stable
    return next((n for n in state.known_good if n in state.ready and n not in state.shares), None)


def left_deploy(state: State) -> Event | None:
    """Return the deploy that was the last change and was not followed by a release, or None.

    Its revision may have failed to start.
    """
    last = next(reversed(state.log), None)
    if last is None or last.verb != "deploy" or last.revision in (state.candidate, *state.shares):
        return None
    return last if last.revision in state.revisions else None


def was_rolled_back(state: State, revision: str) -> bool:
    """Return whether a revision had traffic and is not known to be good any more."""
    served = any(event.revision == revision and event.percent for event in state.log)
    return served and revision not in (*state.known_good, *state.shares)


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
    if state.failure and name == state.failure.revision and name not in state.shares:
        return "rollout failed"
    if name == state.candidate and not is_finished(state, name):
        return "candidate"
    if name in state.shares:
        return "serving" if name == state.stable or name in state.unknown else "left over"
    if name == back:
        return "rollback target"
    return "known good" if name in state.known_good else ""
