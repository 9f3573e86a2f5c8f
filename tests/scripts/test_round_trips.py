"""The number of requests to the API before and after a change."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest

from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests.emulator.cloud_run_help import eventually
from tests.relay import Answer, Exchange, Relay
from tests.scripts.conftest import Project


def slow(project: Project) -> Relay:
    """Answer a write when it is in force, and a read when the other one has been asked, too."""
    both = threading.Barrier(2)
    reads = itertools.count()

    def meet(method: str, _path: str) -> None:
        if method == "GET" and next(reads) < 2:
            both.wait(timeout=30)

    def settle(_path: str, answer: Answer) -> Answer:
        eventually(lambda: is_settled(project.service()))
        return answer

    return Relay(project.cloud_run.url, refuse=meet, change=settle)


def is_settled(service: Any) -> bool:
    seen: bool = service["status"]["observedGeneration"] == service["metadata"]["generation"]
    return seen and all(one["status"] == "True" for one in service["status"]["conditions"])


def shape(project: Project, relay: Relay) -> list[str]:
    """Return each request's method and the last part of its path, in the order of their start."""
    began = sorted(relay.exchanges, key=lambda exchange: exchange.began)
    api = [one for one in began if one.path.startswith(("/v1/", "/apis/"))]
    assert len(api) == len(began), "only Cloud Run's API is asked"
    return [f"{one.method} {part(one).replace(project.name, 'service')}" for one in api]


def part(exchange: Exchange) -> str:
    return exchange.path.partition("?")[0].rpartition("/")[2]


@pytest.mark.parametrize(
    "verb", [["promote"], ["promote", "--all"], ["rollback"], ["rollback", "--no-hold"]]
)
def test_one_round_trip_before_the_write_and_four_in_all(
    candidate: Project, verb: list[str]
) -> None:
    if verb[0] == "rollback":
        candidate.done("promote", "--to", "10")
    before = candidate.shares()
    with slow(candidate) as relay:
        candidate.done(*verb, **{ENDPOINT_VARIABLE: relay.url})
    asked = shape(candidate, relay)
    assert sorted(asked[:2]) == ["GET revisions", "GET service"]
    assert asked[2] == "PUT service"
    # A step of a promotion is noted as in progress, and one small write more ends that.
    last = ["PUT service"] if verb[0] == "promote" else []
    assert asked[3:] in (["GET service", *last], last)
    assert relay.in_turn <= 3 + len(last)
    assert candidate.shares() != before


def test_a_rollback_that_has_nothing_to_do_takes_one_round_trip(candidate: Project) -> None:
    candidate.done("promote", "--to", "10")
    candidate.done("rollback")
    with slow(candidate) as relay:
        candidate.done("rollback", **{ENDPOINT_VARIABLE: relay.url})
    assert sorted(shape(candidate, relay)) == ["GET revisions", "GET service"]


def test_status_takes_one_round_trip(candidate: Project) -> None:
    with slow(candidate) as relay:
        candidate.done("status", **{ENDPOINT_VARIABLE: relay.url})
    assert sorted(shape(candidate, relay)) == ["GET revisions", "GET service"]
    assert relay.in_turn == 1


def test_a_deploy_between_the_two_reads_is_displaced(candidate: Project) -> None:
    """The service is read after someone's deploy, the revisions are read before it."""
    candidate.done("promote", "--to", "10")
    third = candidate.commit()
    candidate.done("build")
    deployed = threading.Event()

    def deploy_in_between(_method: str, path: str) -> None:
        if path.endswith(f"/services/{candidate.name}") and not deployed.is_set():
            while not any("/revisions" in exchange.path for exchange in relay.exchanges):
                time.sleep(0.01)
            candidate.done("deploy")
            deployed.set()

    with Relay(candidate.cloud_run.url, refuse=deploy_in_between) as relay:
        candidate.done("rollback", "--no-hold", **{ENDPOINT_VARIABLE: relay.url})
    assert deployed.is_set()
    assert [*candidate.shares().values()] == [100]
    tags = {t.get("tag"): t["revisionName"] for t in candidate.service()["spec"]["traffic"]}
    assert f"sha-{third[:7]}" not in tags, "it is not the candidate any more"
    candidate.done("deliver", "--commit", third)
    assert candidate.shares() == {candidate.revision(third): 100}
