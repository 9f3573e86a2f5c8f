"""Traffic plans. Pure: lists of targets in, lists of targets out.

A target has Cloud Run's form: {"revisionName", "percent"} or {"revisionName", "tag"}. The plans
made here name revisions only (I1), sum to 100 (I3) and keep every tag (I8).
"""

from __future__ import annotations

from typing import Any

Target = dict[str, Any]
Shares = dict[str, int]


def pin(spec: list[Target], status: list[Target], latest: str | None) -> list[Target]:
    """Return the traffic in force, with every target's revision by name (I1).

    Args:
        spec: `spec.traffic`, where others may have written `latestRevision: true`.
        status: `status.traffic`, where Cloud Run resolves it to a revision.
        latest: `status.latestReadyRevisionName`, for targets that status does not list yet.

    Returns:
        Shares first, then tags, each in their order in the plan.
    """
    shares: Shares = {}
    tags: dict[str, str] = {}
    for target in spec or status:
        name = target.get("revisionName") or _resolved(target, status) or latest
        if not name:
            continue
        if target.get("percent"):
            shares[name] = shares.get(name, 0) + target["percent"]
        if target.get("tag"):
            tags[target["tag"]] = name
    return plan(shares, tags)


def _resolved(target: Target, status: list[Target]) -> str | None:
    """Return the revision that Cloud Run resolves a `latestRevision: true` target to."""
    for found in status:
        if found.get("latestRevision") and found.get("tag") == target.get("tag"):
            return found.get("revisionName")
    return next((t.get("revisionName") for t in status if t.get("latestRevision")), None)


def plan(shares: Shares, tags: dict[str, str]) -> list[Target]:
    """Make `spec.traffic` from shares (revision → percent) and tags (tag → revision)."""
    percents = [{"revisionName": name, "percent": part} for name, part in shares.items() if part]
    return percents + [{"revisionName": name, "tag": tag} for tag, name in tags.items()]


def shares(targets: list[Target]) -> Shares:
    """Return revision → percent, for the revisions with traffic."""
    found: Shares = {}
    for target in targets:
        if target.get("percent"):
            name = target["revisionName"]
            found[name] = found.get(name, 0) + target["percent"]
    return found


def tags(targets: list[Target]) -> dict[str, str]:
    """Return tag → revision."""
    return {target["tag"]: target["revisionName"] for target in targets if target.get("tag")}


def shift(targets: list[Target], candidate: str, percent: int, stable: str | None) -> list[Target]:
    """Give `candidate` its percent and `stable` the rest; other shares end, tags stay.

    Args:
        targets: the traffic in force, as `pin` returns it.
        candidate: the revision being released.
        percent: its share, 0 to 100.
        stable: the revision that serves the rest; None only where percent is 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not a percentage (0 to 100)")
    if stable is None and percent != 100:
        raise ValueError("without a stable revision the candidate takes everything")
    rest = {stable: 100 - percent} if stable is not None else {}
    return plan({**rest, candidate: percent + rest.get(candidate, 0)}, tags(targets))


def tag(targets: list[Target], name: str, revision: str) -> list[Target]:
    """Put the tag `name` on `revision`; shares and other tags stay (I8)."""
    return plan(shares(targets), {**tags(targets), name: revision})
