"""`status.conditions` of services and revisions."""

from __future__ import annotations

from typing import Any, NamedTuple

from emulator import clock

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


class State(NamedTuple):
    """What a condition says: `status` is True, False or Unknown; the rest says why."""

    status: str
    reason: str = ""
    message: str = ""


def get(document: dict[str, Any], kind: str) -> State:
    """The condition of type `kind` in a service's or revision's status; Unknown when not there."""
    for condition in document.get("status", {}).get("conditions", []):
        if condition["type"] == kind:
            return State(
                condition["status"], condition.get("reason", ""), condition.get("message", "")
            )
    return State(UNKNOWN)


def since(document: dict[str, Any], kind: str) -> str | None:
    """When the condition of type `kind` last changed its status; None when it is not there."""
    for condition in document.get("status", {}).get("conditions", []):
        if condition["type"] == kind:
            return str(condition["lastTransitionTime"])
    return None


def put(document: dict[str, Any], kind: str, state: State, *, since: str | None = None) -> None:
    """Set the condition of type `kind`.

    Its transition time becomes `since` (now, unless given) when its status changes.
    """
    conditions: list[dict[str, Any]] = document["status"].setdefault("conditions", [])
    before = next((c for c in conditions if c["type"] == kind), None)
    condition: dict[str, Any] = {"type": kind, "status": state.status}
    if state.reason:
        condition["reason"] = state.reason
    if state.message:
        condition["message"] = state.message
    if before is not None and before["status"] == state.status:
        condition["lastTransitionTime"] = before["lastTransitionTime"]
    else:
        condition["lastTransitionTime"] = since or clock.now()
    if before is None:
        conditions.append(condition)
    else:
        conditions[conditions.index(before)] = condition
