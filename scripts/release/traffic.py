"""Traffic plans. Pure: lists of targets in, lists of targets out.

A target is Cloud Run's: {"revisionName", "percent"} or {"revisionName", "tag"}. What this module
writes names revisions only (I1), sums to 100 (I3) and keeps every tag (I8).
"""

from __future__ import annotations

from typing import Any

Target = dict[str, Any]
Shares = dict[str, int]


def pinned(spec: list[Target], status: list[Target], latest: str | None) -> list[Target]:
    """The traffic that is in force, every target by its revision's name (I1).

    Args:
        spec: `spec.traffic`, where others may have written `latestRevision: true`.
        status: `status.traffic`, where Cloud Run says which revision that means.
        latest: `status.latestReadyRevisionName`, for targets that status does not list yet.

    Returns:
        Shares first, in the order of the plan, then tags, in theirs.
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
    """The revision that Cloud Run gives a `latestRevision: true` target."""
    for found in status:
        if found.get("latestRevision") and found.get("tag") == target.get("tag"):
            return found.get("revisionName")
    return next((t.get("revisionName") for t in status if t.get("latestRevision")), None)


def plan(shares: Shares, tags: dict[str, str]) -> list[Target]:
    """`spec.traffic` from shares (revision → percent) and tags (tag → revision)."""
    percents = [{"revisionName": name, "percent": part} for name, part in shares.items() if part]
    return percents + [{"revisionName": name, "tag": tag} for tag, name in tags.items()]


def shares(targets: list[Target]) -> Shares:
    """Revision → percent, of those that get any."""
    found: Shares = {}
    for target in targets:
        if target.get("percent"):
            name = target["revisionName"]
            found[name] = found.get(name, 0) + target["percent"]
    return found


def tags(targets: list[Target]) -> dict[str, str]:
    """Tag → revision."""
    return {target["tag"]: target["revisionName"] for target in targets if target.get("tag")}


def shift(targets: list[Target], candidate: str, percent: int, stable: str | None) -> list[Target]:
    """Give `candidate` its percent and `stable` the rest; every other share ends, every tag stays.

    Args:
        targets: the traffic in force, as `pinned` returns it.
        candidate: the revision being released.
        percent: its share, 0 to 100.
        stable: the revision that serves the rest; None only where percent is 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is no percentage")
    if stable is None and percent != 100:
        raise ValueError("without a stable revision the candidate takes everything")
    rest = {stable: 100 - percent} if stable is not None else {}
    return plan({**rest, candidate: percent + rest.get(candidate, 0)}, tags(targets))


def tagged(targets: list[Target], tag: str, revision: str) -> list[Target]:
    """The same shares, with `tag` on `revision`; every other tag stays where it is (I8)."""
    return plan(shares(targets), {**tags(targets), tag: revision})
