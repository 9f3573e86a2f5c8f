"""Numbers from Cloud Monitoring that cannot be true: unclear, neither worse nor healthy."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest

from scripts.cloud import metrics
from scripts.cloud.google import Google
from scripts.config import pipelines
from scripts.config.formats import Watch
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.errors import ShipError
from scripts.release.watch import Folds, Promise, promise, see, weigh
from tests.conftest import ROOT
from tests.scripts.test_registry_client import answering

NOW = 1_800_000_000.0


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds))


def point(begin: float = 0, counts: tuple[int, ...] = (0, 7, 3), **more: Any) -> dict[str, Any]:
    growing = {"numFiniteBuckets": 66, "growthFactor": 1.4, "scale": 1.0}
    spread = {
        "count": str(sum(counts)),
        "bucketCounts": [str(count) for count in counts],
        "bucketOptions": {"exponentialBuckets": growing},
        **more,
    }
    interval = {"startTime": moment(begin), "endTime": moment(begin + 60)}
    return {"interval": interval, "value": {"distributionValue": spread}}


def series(*points: Any, revision: str = "app-2", status: str = "2xx") -> dict[str, Any]:
    return {
        "resource": {"labels": {"revision_name": revision}},
        "metric": {"labels": {"response_code_class": status}},
        "points": [*points],
    }


@contextmanager
def google(*pages: Any, **headers: str) -> Iterator[Google]:
    """Yield the APIs, of which Cloud Monitoring answers with these pages; the last one repeats."""
    left = list(pages)

    def answer(*_: object) -> tuple[int, dict[str, str], bytes]:
        page = left.pop(0) if len(left) > 1 else left[0]
        body = page if isinstance(page, bytes) else json.dumps(page).encode()
        return 200, {"Content-Type": "application/json", **headers}, body

    with answering(answer) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT_VARIABLE, url)
        yield Google(PIPELINE)


PIPELINE = pipelines.load(ROOT / "tests", "app", "local")


def read(*pages: Any) -> list[Any]:
    with google(*pages) as apis:
        return metrics.points(apis, PIPELINE, "us-central1", NOW, NOW + 3600)


def test_numbers_that_can_be_true() -> None:
    [first, second] = read(
        {"timeSeries": [series(point())], "nextPageToken": "more"},
        {"timeSeries": [series(point(60, (0, 0, 1)), status="5xx")]},
    )
    assert (first.answers, first.is_error, second.answers, second.is_error) == (10, False, 1, True)
    assert first.latencies == {(1.0, 1.4): 7, (1.4, 1.4**2): 3}


def without(*path: str) -> dict[str, Any]:
    found = copy.deepcopy(series(point()))
    at: Any = found
    for key in path[:-1]:
        at = at[0][key] if isinstance(at, list) else at[key]
    (at[0] if isinstance(at, list) else at).pop(path[-1])
    return found


SPREAD = ("points", "value", "distributionValue")


@pytest.mark.parametrize(
    "hostile",
    [
        without("resource", "labels", "revision_name"),
        without("resource"),
        without("metric", "labels", "response_code_class"),
        without("points", "interval", "endTime"),
        without(*SPREAD),
        without(*SPREAD, "bucketOptions"),
        without(*SPREAD, "bucketCounts"),
        series(point(bucketCounts=["0", "-7", "17"])),
        series(point(bucketCounts=["0", "7", "4"])),
        series(point(bucketCounts=["7.5", "2.5"])),
        series(point(counts=(10**13,))),
        series(point(counts=(*([0] * 68), 1))),
        series(point(bucketOptions={"exponentialBuckets": {
            "numFiniteBuckets": 10**9, "growthFactor": 1.4, "scale": 1.0}})),
        series(point(bucketOptions={"exponentialBuckets": {
            "numFiniteBuckets": 66, "growthFactor": 0.5, "scale": 1.0}})),
        series(point(bucketOptions={"exponentialBuckets": {
            "numFiniteBuckets": 900, "growthFactor": 1e300, "scale": 1.0}})),
        series(point(bucketOptions={"explicitBuckets": {"bounds": [1, float("nan"), 3]}})),
        series(point(bucketOptions={"explicitBuckets": {"bounds": [3, 2, 1]}})),
        series(point(bucketOptions={"linearBuckets": {"width": 1}})),
        series({**point(), "interval": {"startTime": moment(60), "endTime": moment(0)}}),
        series({**point(), "interval": {"startTime": "soon", "endTime": "late"}}),
        series({**point(), "interval": {"startTime": "2026-01-01", "endTime": "2026-01-02"}}),
    ],
    ids=lambda hostile: str(hostile)[-160:],
)  # fmt: skip
def test_numbers_that_cannot_be_true_are_an_error(hostile: Any) -> None:
    with pytest.raises(ShipError) as caught:
        read({"timeSeries": [series(point()), hostile]})
    assert "Monitoring" in caught.value.message


@pytest.mark.parametrize("page", [b"{", b"[]", b"<html>", b'{"timeSeries": 7}', b"null"])
@pytest.mark.usefixtures("clock")
def test_answers_of_another_form_are_an_error(page: bytes) -> None:
    with pytest.raises(ShipError):
        read(page)


def test_pages_that_never_end_are_an_error() -> None:
    with pytest.raises(ShipError, match="does not end after 20 pages"):
        read({"timeSeries": [], "nextPageToken": "again"})


def test_only_both_revisions_and_the_time_that_is_complete_count() -> None:
    found = read(
        {
            "timeSeries": [
                series(point(), point(86400), point(-3600)),
                series(point(), revision="app-1"),
                series(point(counts=(10**12,)), revision="other-1", status="5xx"),
            ]
        }
    )
    seen = see(found, "app-2", "app-1", rules=Watch(), since=NOW, until=NOW + 120)
    assert (seen.candidate.answers, seen.stable.answers) == (10, 10)
    assert len(seen.errors) == 1
    quiet = see(found, "app-2", "app-1", rules=Watch(), since=NOW + 200, until=NOW + 300)
    both = weigh({"one": seen, "two": quiet}, Watch(at_least=5))
    assert (both.verdict.verdict, both.verdict.missing) == ("unclear", 5), "no traffic in one"
    most = read({"timeSeries": [series(point(counts=(10**12,)), status="5xx")]})
    huge = see(most, "app-2", "app-1", rules=Watch(), since=NOW, until=NOW + 120)
    assert weigh({"one": huge}, Watch()).verdict.verdict == "unclear", "nothing to compare with"


def test_many_points_are_read_in_time() -> None:
    many = [series(*(point(60 * n) for n in range(1000)), revision=f"app-{m}") for m in range(10)]
    body = {"timeSeries": many}
    began = time.process_time()
    found = read(body)
    seen = see(found, "app-2", "app-1", rules=Watch(), since=NOW, until=NOW + 10**6)
    assert len(found) == 10_000
    assert seen.candidate.answers == 10_000
    assert time.process_time() - began < 20, "of the processor"


def test_evidence_that_was_folded_before_is_the_same() -> None:
    """Also if a window that was final has changed, because its numbers came late."""
    folds = Folds()
    found = read({"timeSeries": [
        series(*(point(60 * n, (n % 5, 3)) for n in range(60)), status="5xx"),
        series(*(point(60 * n, (40,)) for n in range(60))),
        series(*(point(60 * n, (50,)) for n in range(60)), revision="app-1"),
    ]})  # fmt: skip
    for until in (300, 1200, 1800, 3600, 2400):
        for late in (found, found[1:]):
            seen = see(late, "app-2", "app-1", rules=Watch(), since=NOW, until=NOW + until)
            again = weigh({"one": seen}, Watch(), folds=folds)
            assert again == weigh({"one": seen}, Watch())


def promised(*bad: int, answers: int = 200) -> Promise | None:
    """Return what stable promises that answered so many badly in each of its minutes."""
    found = read({"timeSeries": [
        series(*(point(60 * n, (0, one)) for n, one in enumerate(bad)), status="5xx"),
        series(*(point(60 * n, (0, answers - one)) for n, one in enumerate(bad))),
    ]})  # fmt: skip
    return promise(found, "app-2", Watch(), NOW + 60 * len(bad))


def test_a_promise_is_the_mean_of_minutes_that_vary_by_chance() -> None:
    found = promised(*[1, 2, 3, 2, 0, 4] * 10)
    assert found
    assert found.errors == pytest.approx((121 + 2 * 11) / 12_000)
    assert found.slow == pytest.approx(3 / 12_000)


def test_a_promise_of_minutes_that_vary_by_more_is_what_almost_all_of_them_kept() -> None:
    burst = (41 + 2 * 41**0.5) / 200
    often = promised(*[1, 2, 0, 2, 0, 1, 2, 1, 3, 40] * 6)
    assert often
    assert often.errors == pytest.approx(burst)
    once = promised(*[1, 2, 0, 2, 0, 1, 2, 1, 3, 1] * 6, 200)
    assert once
    assert once.errors < 0.05, "one minute in which all failed is an accident"


def test_too_few_answers_promise_nothing() -> None:
    assert promised(0, 0, 0, answers=60) is None
    quiet = promised(*[0] * 59, 1, answers=4)
    assert quiet
    assert quiet.errors < 0.05


def test_the_time_is_that_of_the_server() -> None:
    for behind in (-600, 0, 600):
        with google({"timeSeries": []}, Date=formatdate(time.time() + behind, usegmt=True)) as apis:
            apis.get("monitoring", "/v3/projects/p/timeSeries")
            assert abs(apis.now() - time.time() - behind) < 60
    with google({"timeSeries": []}, Date="yesterday") as apis:
        apis.get("monitoring", "/v3/projects/p/timeSeries")
        assert abs(apis.now() - time.time()) < 60
