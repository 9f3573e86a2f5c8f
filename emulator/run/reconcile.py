"""Reconciles services with their documents: gets revisions ready, then moves traffic to them.

Each service has one worker, so that no step runs twice at once. Starting a revision is a task of
its own, so that a slow start delays nothing else. The worker's last step, `_conclude`, does not
await: it reads the current documents, moves the traffic and writes the status in one step of the
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from typing import Any

from emulator.instances.pool import Instances
from emulator.names import Key
from emulator.router.frontend import revisions_of
from emulator.router.router import Router
from emulator.router.split import Split
from emulator.run import conditions, scale, traffic
from emulator.run.conditions import FALSE, TRUE, UNKNOWN, State
from emulator.run.launches import launch
from emulator.run.resources import Resources
from emulator.run.starting import Starter

Document = dict[str, Any]

# Seconds to wait for a new instance before traffic moves to its revision. The first requests then
# wait for the instance.
_WARM_UP = 10.0
# Seconds until the next attempt after an unexpected error, whose cause may be gone by then.
_AGAIN = 1.0
_READY = State(TRUE)

_log = logging.getLogger("emulator.run")


class Reconciler:
    """Watches every service."""

    def __init__(
        self, resources: Resources, instances: Instances, router: Router, starter: Starter
    ) -> None:
        self._resources = resources
        self._instances = instances
        self._router = router
        self._starter = starter
        self._wanted: dict[Key, asyncio.Event] = {}
        self._workers: dict[Key, asyncio.Task[None]] = {}
        self._starts: dict[Key, asyncio.Task[None]] = {}

    async def resume(self) -> None:
        """Route every stored service as before the restart, on the same ports."""
        for key, service in list(self._resources.services.items()):
            for revision, document in self._resources.revisions_of(key):
                if conditions.get(document, "Ready").status == TRUE:
                    self._instances.register(launch(revision, document))
            await self._router.open(key, traffic.tags(service["status"].get("traffic", [])))
            self._apply(key, service["status"].get("traffic", []))
            self.changed(key)

    def changed(self, key: Key) -> None:
        """Reconcile a service that was written or whose revision became ready or failed."""
        for revision, document in self._resources.revisions_of(key):
            if conditions.get(document, "Ready").status == UNKNOWN and revision not in self._starts:
                self._starts[revision] = asyncio.create_task(self._start(key, revision))
        self._wanted.setdefault(key, asyncio.Event()).set()
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key))

    def removed(self, key: Key, revisions: list[Key]) -> None:
        """Stop deleted revisions of a service, and the service itself if it was deleted."""
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
                # An error in one pass must not keep later writes of the service from being served.
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
        """Start an instance of each revision that is about to get requests."""
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
            made = _cannot_serve(latest, made, made.reason)
        conditions.put(service, "ConfigurationsReady", made)
        ready = self._latest_ready(key)
        if ready:
            status["latestReadyRevisionName"] = ready
        targets = traffic.resolve(service["spec"]["traffic"], ready)
        routed = self._routable(key, targets, latest, made)
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
        """Return False if a write added a tag after the listeners were opened."""
        try:
            for tag in ("", *traffic.tags(targets)):
                self._router.url(key, tag)
        except KeyError:
            return False
        return True

    def _routable(self, key: Key, targets: list[Document], latest: str, made: State) -> State:
        """Return whether every target can get requests. If not, the routes do not change.

        Args:
            key: The service.
            targets: The resolved traffic plan.
            latest: The latest created revision.
            made: The ConfigurationsReady condition, which is about `latest`.
        """
        for target in targets:
            name = target["revisionName"]
            if target.get("latestRevision") and made.status == UNKNOWN:
                return made
            state = made if name is None else self._state(key, name)
            if state.status == UNKNOWN:
                return state
            if state.status == FALSE:
                return _cannot_serve(name or latest, state, "RevisionFailed")
        return _READY

    def _apply(self, key: Key, targets: list[Document]) -> None:
        """Route requests to the resolved `targets`, from the next request on."""
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
        """Return the newest revision that became ready: the target of `latestRevision: true`."""
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
        """Start one revision, and store whether it is ready or why it failed."""
        try:
            document = await self._starter.started(key, self._resources.revisions[key])
            self._resources.put_revision(key, document)
        finally:
            self._starts.pop(key, None)
        self.changed(service)

    async def close(self) -> None:
        """Stop reconciling. The next start of the local Cloud Run resumes unfinished work."""
        tasks = [*self._workers.values(), *self._starts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cannot_serve(revision: str, state: State, reason: str) -> State:
    message = f"Revision '{revision}' is not ready and cannot serve traffic. {state.message}"
    return State(FALSE, reason, message)


def _worst(*states: State) -> State:
    for status in (FALSE, UNKNOWN):
        for state in states:
            if state.status == status:
                return state
    return _READY
