"""Traffic plans, property-tested: the invariants hold after any changes in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scripts.release import traffic

REVISIONS = ["app-1111111", "app-2222222", "app-3333333", "app-00004-foo"]
TAGS = ["sha-1111111", "beta", "preview-7"]

revisions = st.sampled_from(REVISIONS)
tags = st.dictionaries(st.sampled_from(TAGS), revisions)


@st.composite
def plans(draw: st.DrawFn) -> list[traffic.Target]:
    """Draw any traffic that a service may have: shares that sum to 100, and tags."""
    names = draw(st.lists(revisions, min_size=1, max_size=4, unique=True))
    cuts = sorted(
        draw(st.lists(st.integers(0, 100), min_size=len(names) - 1, max_size=len(names) - 1))
    )
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    return traffic.plan(dict(zip(names, parts, strict=True)), draw(tags))


@given(plans(), revisions, st.integers(0, 100), revisions)
def test_a_shift_sums_to_100_and_keeps_every_tag(
    before: list[traffic.Target], candidate: str, percent: int, stable: str
) -> None:
    """I3, I8."""
    after = traffic.shift(before, candidate, percent, stable)
    assert sum(traffic.shares(after).values()) == 100
    assert traffic.tags(after) == traffic.tags(before)
    assert traffic.shares(after).keys() <= {candidate, stable}
    if candidate != stable:
        assert traffic.shares(after).get(candidate, 0) == percent


@given(plans(), st.sampled_from(TAGS), revisions)
def test_a_tag_moves_no_traffic_and_no_other_tag(
    before: list[traffic.Target], tag: str, revision: str
) -> None:
    """I8."""
    after = traffic.tag(before, tag, revision)
    assert traffic.shares(after) == traffic.shares(before)
    assert traffic.tags(after) == {**traffic.tags(before), tag: revision}


@given(plans(), st.sampled_from(REVISIONS))
def test_a_target_that_follows_the_latest_revision_is_pinned_to_its_name(
    plan: list[traffic.Target], latest: str
) -> None:
    """I1: targets that others made follow the latest revision are named as they resolve now."""
    spec: list[dict[str, Any]] = []
    status: list[dict[str, Any]] = []
    for target in plan:
        if target["revisionName"] == latest:
            rest = {key: value for key, value in target.items() if key != "revisionName"}
            spec.append({**rest, "latestRevision": True})
            status.append({**target, "latestRevision": True})
        else:
            spec.append(target)
            status.append(target)
    pinned = traffic.pin(spec, status, latest)
    assert not any("latestRevision" in target for target in pinned)
    assert traffic.shares(pinned) == traffic.shares(plan)
    assert traffic.tags(pinned) == traffic.tags(plan)


def test_one_target_with_tag_and_share_keeps_both() -> None:
    spec = [{"revisionName": "app-1111111", "percent": 100, "tag": "beta"}]
    assert traffic.pin(spec, spec, None) == [
        {"revisionName": "app-1111111", "percent": 100},
        {"revisionName": "app-1111111", "tag": "beta"},
    ]
