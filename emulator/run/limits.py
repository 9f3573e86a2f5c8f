"""Limits on revisions and tags, which Cloud Run keeps by deleting the oldest.

Source: https://cloud.google.com/run/quotas (1,000 revisions a service, 2,000 tags a project and
region) and https://cloud.google.com/run/docs/managing/revisions (older revisions are deleted).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emulator.names import Key
from emulator.run import traffic

Document = dict[str, Any]

REVISIONS = 1_000
TAGS = 2_000


def surplus_revisions(
    service: Document, revisions: list[tuple[Key, Document]], limit: int = REVISIONS
) -> list[Key]:
    """Return the revisions to delete so that a service has at most `limit`.

    Revisions with traffic or a tag and the latest created and latest ready ones are kept.

    Args:
        service: The service's document.
        revisions: Its revisions, oldest first.
        limit: The most revisions of a service.
    """
    if len(revisions) <= limit:
        return []
    status = service["status"]
    targets = [*service["spec"]["traffic"], *status.get("traffic", [])]
    kept = {target.get("revisionName") for target in targets}
    kept |= {status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")}
    spare = [key for key, _ in revisions if key.name not in kept]
    return spare[: len(revisions) - limit]


def surplus_tags(
    services: Iterable[tuple[Key, Document]], made: dict[Key, str], limit: int = TAGS
) -> list[tuple[Key, str]]:
    """Return the tags to drop so that a project and region has at most `limit`.

    Only tags without traffic are dropped, those of the oldest revisions first. Cloud Run uses the
    history of the tags, which is not kept here.

    Args:
        services: The services of one project and region.
        made: The time when each revision was created.
        limit: The most tags of a project and region.

    Returns:
        Pairs of a service and a tag.
    """
    found = [
        (key, target)
        for key, service in services
        for target in service["spec"]["traffic"]
        if "tag" in target
    ]
    spare = sorted(
        (made.get(key.sibling(target.get("revisionName", "")), "~"), key, target["tag"])
        for key, target in found
        if not target.get("percent")
    )
    return [(key, tag) for _, key, tag in spare[: max(0, len(found) - limit)]]


def without_tags(plan: list[Document], dropped: set[str]) -> list[Document]:
    """Return a traffic plan without the targets of the dropped tags, which have no share."""
    return [target for target in plan if not traffic.tags([target]) & dropped]
