"""The service to write for a deploy without traffic. Pure."""

from __future__ import annotations

import copy

import msgspec

from scripts.release import memory, traffic
from scripts.release.changes import Actor
from scripts.release.manifest import Object
from scripts.release.memory import FAILED, LOG, OPERATION, Event
from scripts.release.state import State, drop_spent_tags, read_state


def deploy(state: State | None, desired: Object, revision: str, tag: str, actor: Actor) -> Object:
    """Make the service to write for a deploy without traffic.

    Args:
        state: the service as read; None if it does not exist yet.
        desired: the service that git declares (`manifest.render`).
        revision: the revision's name.
        tag: the revision's tag.
        actor: who asks.

    Returns:
        The whole service: the declared template, the traffic in force by revision names, and the
        labels, annotations and tags of others unchanged (I8). Where nothing serves yet the revision
        gets all traffic: Cloud Run has no service without traffic.
    """
    if state is None:
        service = copy.deepcopy(desired)
        targets = traffic.plan({revision: 100}, {tag: revision})
        log: list[Event] = []
    else:
        service = copy.deepcopy(state.service)
        service.pop("status", None)
        metadata = service["metadata"]
        for key in ("labels", "annotations"):
            metadata[key] = {**(metadata.get(key) or {}), **desired["metadata"].get(key, {})}
        service["spec"] = {**service["spec"], **copy.deepcopy(desired["spec"])}
        targets = traffic.tag(state.targets, tag, revision)
        if not state.stable:
            targets = traffic.plan({revision: 100}, traffic.tags(targets))
        log = state.log
        if state.failure and state.failure.revision != revision:
            service["metadata"]["annotations"].pop(FAILED)  # it is not the last release any more
    service["spec"]["traffic"] = targets
    annotations = service["metadata"].setdefault("annotations", {})
    annotations[LOG] = memory.encode_log([*log, actor.event("deploy", revision)])
    drop_spent_tags(service, state.revisions if state else {})
    return service


def deployed(state: State | None, service: Object, revision: str, where: str) -> State:
    """Return the service as it would be once the revision is Ready, for a dry run.

    Args:
        state: the service as read; None if it does not exist yet.
        service: the service that would be written.
        revision: the revision's name.
        where: what to type after a verb to mean this service.
    """
    template = service["spec"]["template"]
    made = {
        "metadata": {**template.get("metadata", {}), "name": revision, "creationTimestamp": ""},
        "spec": template["spec"],
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    others = [one for name, one in state.revisions.items() if name != revision] if state else []
    status = {**(state.status if state else {}), "traffic": service["spec"]["traffic"]}
    found = read_state({**service, "status": status}, [made, *others], where)
    return msgspec.structs.replace(found, newer=state.newer if state else frozenset())


def differs(state: State, service: Object) -> bool:
    """Return whether writing `service` would change more than the history (I6)."""
    return _comparable(state.service) != _comparable(service)


def _comparable(service: Object) -> Object:
    metadata = service["metadata"]
    found = metadata.get("annotations") or {}
    annotations = {k: v for k, v in found.items() if k not in (LOG, OPERATION)}
    return {
        "spec": service["spec"],
        "labels": metadata.get("labels") or {},
        "annotations": annotations,
    }
