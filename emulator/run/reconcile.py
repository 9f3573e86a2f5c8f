"""Brings what runs to what was written: revisions to ready, then traffic to the revisions.

One worker per service, so that nothing is done twice at once; starting a revision is a task of its
own, so that a slow one holds nothing up. The worker's last step, `_conclude`, does not await: it
looks at the documents as they are now, moves the traffic and writes the status in one go.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Callable
from typing import Any

from emulator.instances.launch import Launch, StartFailed
from emulator.instances.pool import Instances
from emulator.names import Key
from emulator.registry.images import Image, ImageNotFound, WrongPlatform
from emulator.router.frontend import revisions_of
from emulator.router.router import Router
from emulator.router.split import Split
from emulator.run import conditions, scale, traffic
from emulator.run.conditions import FALSE, TRUE, UNKNOWN, State
from emulator.run.launches import launch
from emulator.run.resources import Resources

Document = dict[str, Any]

# Traffic moves even when a new instance takes longer than this: its first requests wait for it.
_WARM_UP = 10.0
# After an error that nobody foresaw: what was in the way may be gone by then.
_AGAIN = 1.0
_READY = State(TRUE)

_log = logging.getLogger("emulator.run")


class Reconciler:
    """Watches over every service.

    `find_image(reference)` looks into the registry; `check_secrets(launch)` raises StartFailed
    when a revision's secrets cannot be read.
    """

    def __init__(
        self,
        resources: Resources,
        instances: Instances,
        router: Router,
        find_image: Callable[[str], Image],
        check_secrets: Callable[[Launch], None],
    ) -> None:
        self._resources = resources
        self._instances = instances
        self._router = router
        self._find_image = find_image

        self._check_secrets = check_secrets
        self._wanted: dict[Key, asyncio.Event] = {}
        self._workers: dict[Key, asyncio.Task[None]] = {}
        self._starts: dict[Key, asyncio.Task[None]] = {}

    async def resume(self) -> None:
        """Take up every stored service again: routed as before, on the ports of before."""
        for key, service in list(self._resources.services.items()):
            for revision, document in self._resources.revisions_of(key):
                if conditions.get(document, "Ready").status == TRUE:
                    self._instances.register(launch(revision, document))
            await self._router.open(key, traffic.tags(service["status"].get("traffic", [])))
            self._apply(key, service["status"].get("traffic", []))
            self.changed(key)

    def changed(self, key: Key) -> None:
        """A service was written, or one of its revisions got ready or failed."""
        for revision, document in self._resources.revisions_of(key):
            if conditions.get(document, "Ready").status == UNKNOWN and revision not in self._starts:
                self._starts[revision] = asyncio.create_task(self._start(key, revision))
        self._wanted.setdefault(key, asyncio.Event()).set()
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key))

    def removed(self, key: Key, revisions: list[Key]) -> None:
        """Some revisions of a service were deleted, or all of them with the service."""
        for revision in revisions:
            if start := self._starts.pop(revision, None):
                start.cancel()
            self._instances.forget(revision)
        if key not in self._resources.services:
            self._wanted.pop(key, None)
            if worker := self._workers.pop(key, None):
                worker.cancel()
            self._router.close_service(key)

    async def _work(self, key: Key) -> None:
        wanted = self._wanted[key]
        while True:
            await wanted.wait()
            wanted.clear()
            try:
                await self._reconcile(key)
            except Exception:
                # One service in trouble must not stop its later writes from being served.
                _log.exception("Reconciling %s failed", key.path)
                await asyncio.sleep(_AGAIN)
                wanted.set()

    async def _reconcile(self, key: Key) -> None:
        service = self._resources.services[key]
        plan = service["spec"]["traffic"]
        kept = traffic.tags(service["status"].get("traffic", []))
        await self._router.open(key, traffic.tags(plan) | kept)
        targets = traffic.resolve(plan, self._latest_ready(key))
        await self._warm_up(key, traffic.newcomers(targets, service["status"].get("traffic", [])))
        self._conclude(key)

    async def _warm_up(self, key: Key, revisions: set[str]) -> None:
        """Have an instance of each of the revisions, which are about to get requests."""
        found = [self._instances.pool(key.sibling(name)) for name in revisions]
        pools = [pool for pool in found if pool is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WARM_UP):
                await asyncio.gather(*(pool.warm() for pool in pools), return_exceptions=True)

    def _conclude(self, key: Key) -> None:
        before = self._resources.services[key]
        service = copy.deepcopy(before)
        status = service["status"]
        latest = status["latestCreatedRevisionName"]
        made = self._state(key, latest)
        if made.status == FALSE:
            message = f"Revision '{latest}' is not ready and cannot serve traffic. {made.message}"
            made = State(FALSE, made.reason, message)
        conditions.put(service, "ConfigurationsReady", made)
        ready = self._latest_ready(key)
        if ready:
            status["latestReadyRevisionName"] = ready
        targets = traffic.resolve(service["spec"]["traffic"], ready)
        routed = self._routable(key, targets, made)
        if not self._has_listeners(key, targets):
            return self.changed(key)
        status["url"] = self._router.url(key)
        status["address"] = {"url": status["url"]}
        urls = f'["{status["url"]}"]'
        service["metadata"]["annotations"]["run.googleapis.com/urls"] = urls
        if routed.status == TRUE:
            status["traffic"] = targets
        for target in status.get("traffic", []):
            if "tag" in target:
                target["url"] = self._router.url(key, target["tag"])
        conditions.put(service, "RoutesReady", routed)
        conditions.put(service, "Ready", _worst(made, routed))
        if service != before:
            self._resources.put_service(key, service)
        if routed.status == TRUE:
            self._apply(key, targets)
            self._router.close_tags(key, traffic.tags(targets))
        return None

    def _has_listeners(self, key: Key, targets: list[Document]) -> bool:
        """False when a write came in after the listeners were opened: there is a next round."""
        try:
            for tag in ("", *traffic.tags(targets)):
                self._router.url(key, tag)
        except KeyError:
            return False
        return True

    def _routable(self, key: Key, targets: list[Document], made: State) -> State:
        """Whether every target can be given requests; what was routed before stays otherwise."""
        for target in targets:
            name = target["revisionName"]
            if target.get("latestRevision") and made.status == UNKNOWN:
                return made
            state = made if name is None else self._state(key, name)
            if state.status == UNKNOWN:
                return state
            if state.status == FALSE:
                return State(
                    FALSE,
                    "RevisionFailed",
                    f"Revision '{name or target_name(made)}' is not ready and cannot serve "
                    f"traffic. {state.message}",
                )
        return _READY

    def _apply(self, key: Key, targets: list[Document]) -> None:
        """Route requests to `targets` (resolved), from the next one on."""
        splits = {}
        weights = [(key.sibling(t["revisionName"]), t.get("percent", 0)) for t in targets]
        if any(weight for _, weight in weights):
            splits[""] = Split(weights)
        for target in targets:
            if "tag" in target:
                splits[target["tag"]] = Split([(key.sibling(target["revisionName"]), 100)])
        self._router.route(key, splits)
        reachable = revisions_of(splits)
        annotations = self._resources.services[key]["metadata"]["annotations"]
        for revision, _ in self._resources.revisions_of(key):
            if pool := self._instances.pool(revision):
                pool.serving = revision in reachable
                share = sum(weight for weighed, weight in weights if weighed == revision)
                pool.bounds = scale.with_share(pool.launch.bounds, annotations, share)

    def _latest_ready(self, key: Key) -> str | None:
        """The newest revision that got ready, as `latestRevision: true` means it."""
        status = self._resources.services[key]["status"]
        latest: str = status["latestCreatedRevisionName"]
        if self._state(key, latest).status == TRUE:
            return latest
        before: str | None = status.get("latestReadyRevisionName")
        return before

    def _state(self, key: Key, revision: str) -> State:
        document = self._resources.revisions.get(key.sibling(revision))
        if document is None:
            return State(FALSE, "RevisionMissing", f"Revision '{revision}' does not exist.")
        return conditions.get(document, "Ready")

    async def _start(self, service: Key, key: Key) -> None:
        """Bring one revision to ready, or to its failure, and write that down."""
        try:
            document = copy.deepcopy(self._resources.revisions[key])
            failure = await self._attempt(key, document)
            for kind, state in _revision_states(failure).items():
                conditions.put(document, kind, state)
            self._resources.put_revision(key, document)
        finally:
            self._starts.pop(key, None)
        self.changed(service)

    async def _attempt(self, key: Key, document: Document) -> StartFailed | None:
        container = launch(key, document)
        try:
            self._check_secrets(container)
        except StartFailed as failure:
            return failure
        try:
            image = await asyncio.to_thread(self._find_image, container.image)
        except ImageNotFound:
            return StartFailed("ContainerMissing", f"Image '{container.image}' not found.")
        except WrongPlatform as error:
            return StartFailed(
                "ContainerImageUnsupported",
                f"Cloud Run does not support image '{container.image}': Container manifest type "
                f"'{error.media_type}' must support amd64/linux.",
            )
        document["status"]["imageDigest"] = f"{_repository(container.image)}@{image.digest}"
        pool = self._instances.register(launch(key, document))
        try:
            await pool.warm()
        except StartFailed as failure:
            self._instances.forget(key)
            logs = document["status"]["logUrl"]
            return StartFailed(failure.reason, f"{failure.message}\nLogs URL: {logs}")
        return None

    async def close(self) -> None:
        """Stop reconciling; what is under way is taken up again at the next start."""
        tasks = [*self._workers.values(), *self._starts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def target_name(state: State) -> str:
    """The revision that a ConfigurationsReady condition speaks of."""
    return state.message.partition("'")[2].partition("'")[0]


def _worst(*states: State) -> State:
    for status in (FALSE, UNKNOWN):
        for state in states:
            if state.status == status:
                return state
    return _READY


def _revision_states(failure: StartFailed | None) -> dict[str, State]:
    if failure is None:
        return dict.fromkeys(
            ("Ready", "ContainerHealthy", "ContainerReady", "ResourcesAvailable"), _READY
        )
    bad = State(FALSE, failure.reason, failure.message)
    if failure.reason == "HealthCheckContainerError":
        return {
            "Ready": bad,
            "ContainerHealthy": bad,
            "ContainerReady": _READY,
            "ResourcesAvailable": _READY,
        }
    if failure.reason == "SecretsAccessCheckFailed":
        return {"Ready": bad, "ResourcesAvailable": bad}
    return {"Ready": bad, "ContainerReady": bad}


def _repository(reference: str) -> str:
    """An image reference without its tag and digest."""
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]
