"""How much there may be of what nobody deletes.

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
    """The revisions to delete, so that a service has `limit` at most; `revisions` oldest first.

    None that has traffic or a tag, or is the latest created or ready one.
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
    """The tags to drop from one project and region, so that it has `limit` at most.

    Tags without traffic go, those of the oldest revisions first: `made` says when each revision was
    made. Cloud Run goes by the tags' own history, which is not kept here.
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
    """A traffic plan (without shares of those tags) that lacks some tags."""
    return [target for target in plan if not traffic.tags([target]) & dropped]
