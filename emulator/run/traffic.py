"""Traffic plans: what a service's `spec.traffic` comes to once names are put in."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]


def resolve(plan: list[Document], latest_ready: str | None) -> list[Document]:
    """The targets of a plan as `status.traffic` has them, without URLs.

    For `latestRevision`, the target's `revisionName` is `latest_ready`, or None when
    no revision has been ready yet.
    """
    return [
        {**target, "revisionName": latest_ready} if target.get("latestRevision") else dict(target)
        for target in plan
    ]


def newcomers(targets: list[Document], before: list[Document]) -> set[str]:
    """The revisions that get a percentage by `targets` and got none `before` (both resolved)."""
    old = {target["revisionName"] for target in before if target.get("percent")}
    new = {target["revisionName"] for target in targets if target.get("percent")}
    return new - old - {None}


def tags(targets: list[Document]) -> set[str]:
    """The tags in a plan or in `status.traffic`."""
    return {target["tag"] for target in targets if "tag" in target}
