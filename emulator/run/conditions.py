"""`status.conditions` of services and revisions."""

from __future__ import annotations

from typing import Any, NamedTuple

from emulator import clock

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


class State(NamedTuple):
    """The state of a condition: `status` is True, False or Unknown; the rest is the reason.

    A severity of Warning or Info means that the condition does not decide whether it is ready.
    Source: the discovery document run.v1, GoogleCloudRunV1Condition.
    """

    status: str
    reason: str = ""
    message: str = ""
    severity: str = ""


def get(document: dict[str, Any], kind: str) -> State:
    """Return the condition of type `kind` of a service or revision; Unknown if it has none."""
    for condition in document.get("status", {}).get("conditions", []):
        if condition["type"] == kind:
            return State(
                condition["status"], condition.get("reason", ""), condition.get("message", "")
            )
    return State(UNKNOWN)


def since(document: dict[str, Any], kind: str) -> str | None:
    """Return when the condition of type `kind` last changed its status; None if there is none."""
    for condition in document.get("status", {}).get("conditions", []):
        if condition["type"] == kind:
            return str(condition["lastTransitionTime"])
    return None


def put(document: dict[str, Any], kind: str, state: State, *, since: str | None = None) -> None:
    """Set the condition of type `kind`.

    If its status changes, its transition time becomes `since`, by default the current time.
    """
    conditions: list[dict[str, Any]] = document["status"].setdefault("conditions", [])
    before = next((c for c in conditions if c["type"] == kind), None)
    condition: dict[str, Any] = {"type": kind, "status": state.status}
    if state.reason:
        condition["reason"] = state.reason
    if state.message:
        condition["message"] = state.message
    if state.severity:
        condition["severity"] = state.severity
    if before is not None and before["status"] == state.status:
        condition["lastTransitionTime"] = before["lastTransitionTime"]
    else:
        condition["lastTransitionTime"] = since or clock.now()
    if before is None:
        conditions.append(condition)
    else:
        conditions[conditions.index(before)] = condition
