"""The rules for a Service's traffic plan."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from emulator.errors import ApiError, invalid
from emulator.run import schema
from emulator.run.metadata_rules import LABEL


def plan(
    targets: list[schema.TrafficTarget] | None, revisions: Collection[str], service_name: str
) -> list[dict[str, Any]]:
    """Return the traffic plan to store: with defaults, without entries that have no effect.

    Args:
        targets: The plan of the request.
        revisions: The names of the service's revisions, including a new one.
        service_name: The name of the service.

    Raises:
        ApiError: INVALID_ARGUMENT for an invalid plan, NOT_FOUND for a revision that it names.
    """
    if not targets:
        return [{"latestRevision": True, "percent": 100}]
    tags: set[str] = set()
    kept_targets = []
    for index, target in enumerate(targets):
        where = f"spec.traffic[{index}]"
        _check_target(target, where, revisions, service_name)
        if target.tag:
            _check_tag(target.tag, tags, f"{where}.tag", service_name)
        kept = schema.plain(target)
        kept.pop("url", None)
        kept.pop("configurationName", None)
        if not kept.get("latestRevision"):
            kept.pop("latestRevision", None)
        if not kept.get("percent"):
            kept.pop("percent", None)
        if not kept.get("tag"):
            kept.pop("tag", None)
        if "percent" in kept or "tag" in kept:
            kept_targets.append(kept)
    total = sum(target.get("percent", 0) for target in kept_targets)
    if total != 100:
        raise invalid(f"Traffic percentages must sum to 100, got {total}.", "spec.traffic")
    return kept_targets


def _check_target(
    target: schema.TrafficTarget, where: str, revisions: Collection[str], service_name: str
) -> None:
    if target.percent is not None and not 0 <= target.percent <= 100:
        raise invalid("must be between 0 and 100.", f"{where}.percent")
    if bool(target.revision_name) == bool(target.latest_revision):
        raise invalid("Exactly one of revisionName and latestRevision is required.", where)
    if target.revision_name and target.revision_name not in revisions:
        raise ApiError(
            "NOT_FOUND",
            f"{where}.revisionName: Revision '{target.revision_name}' of service "
            f"'{service_name}' does not exist.",
        )


def _check_tag(tag: str, seen: set[str], field: str, service_name: str) -> None:
    if len(tag) > 46 or not LABEL.fullmatch(tag):
        raise invalid(
            "must use only lowercase alphanumeric characters and dashes, begin with a letter, not "
            "end with a dash, and be no longer than 46 characters.",
            field,
        )
    # A tag and its service's name are one DNS label, TAG---SERVICE, of at most 63 characters.
    if len(tag) + len("---") + len(service_name) > 63:
        raise invalid("The tag and the service's name are too long together.", field)
    if tag in seen:
        raise invalid(f"The tag '{tag}' is given twice.", field)
    seen.add(tag)
