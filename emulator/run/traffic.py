"""Traffic plans: resolves `spec.traffic` to named revisions, and compares plans."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]


def resolve(plan: list[Document], latest_ready: str | None) -> list[Document]:
    """Return the targets of a plan in the form of `status.traffic`, without URLs.

    The target of `latestRevision` gets `latest_ready` as its `revisionName`: None if no revision
    has been ready yet.
    """
    return [
        {**target, "revisionName": latest_ready} if target.get("latestRevision") else dict(target)
        for target in plan
    ]


def newcomers(targets: list[Document], before: list[Document]) -> set[str]:
    """Return the revisions with a percentage in `targets` and none in `before` (both resolved)."""
    old = {target["revisionName"] for target in before if target.get("percent")}
    new = {target["revisionName"] for target in targets if target.get("percent")}
    return new - old - {None}


def tags(targets: list[Document]) -> set[str]:
    """Return the tags in a plan or in `status.traffic`."""
    return {target["tag"] for target in targets if "tag" in target}
