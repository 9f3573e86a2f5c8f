"""A service in two regions: every verb acts in both, and reports what happened in each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests.relay import Relay, Spoiled
from tests.scripts.conftest import Lend, Project

REGIONS = ["us-central1", "europe-west1"]


def deliver_to_both(project: Project) -> None:
    path = project.pipeline / "local.yaml"
    path.write_text(path.read_text().replace("[us-central1]", f"[{', '.join(REGIONS)}]"))
    project.regions = REGIONS
    project.commit()
    project.done("deliver")


def deploy_to_both(project: Project) -> None:
    deliver_to_both(project)
    project.commit()
    project.done("build")
    project.done("deploy")


@pytest.fixture
def both(lend: Lend) -> Iterator[Project]:
    """Yield a project with a first release in two regions."""
    with lend(deliver_to_both) as project:
        yield project


@pytest.fixture
def candidate(lend: Lend) -> Iterator[Project]:
    """Yield a project with a second commit, deployed without traffic in two regions."""
    with lend(deploy_to_both) as project:
        yield project


def names(project: Project) -> tuple[str, str]:
    """Return the revisions of the first commit, which serves, and of the newest one."""
    newest, before = project.git("log", "--format=%H", "-2").split()
    return project.revision(before), project.revision(newest)


def refusing(project: Project, *regions: str, status: tuple[int, str] = (409, "ABORTED")) -> Relay:
    """Yield a relay that refuses every write in these regions."""

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        written = method == "PUT" and any(f"/locations/{region}/" in path for region in regions)
        return status if written else None

    return Relay(project.cloud_run.url, refuse=refuse)


def shares(project: Project) -> list[Any]:
    """Return each region's shares, as status shows them."""
    return [
        {row["revision"]: row["percent"] for row in region["revisions"] if row["percent"]}
        for region in project.done("status")["regions"]
    ]


def test_a_release_goes_to_every_region(both: Project) -> None:
    commit = both.commit()
    done = both.done("deliver")
    assert [region["region"] for region in done["regions"]] == REGIONS
    assert shares(both) == [{both.revision(commit): 100}] * 2


def test_promote_and_rollback_move_every_region(both: Project) -> None:
    old = both.revision(both.git("rev-parse", "HEAD"))
    new = both.revision(both.commit())
    both.done("build")
    both.done("deploy")
    both.done("promote")
    assert shares(both) == [{old: 90, new: 10}] * 2
    both.done("rollback")
    assert shares(both) == [{old: 100}] * 2
    assert [r["hold"]["name"] for r in both.done("status")["regions"]] == [
        f"rollback-{new.removeprefix(both.name + '-')}"
    ] * 2


def test_a_check_that_fails_in_one_region_stops_both(both: Project) -> None:
    """I5."""
    before = shares(both)
    both.serve_with(
        "from urllib.request import Request, urlopen\n"
        "host = os.environ['GCE_METADATA_HOST']\n"
        "url = f'http://{host}/computeMetadata/v1/instance/region'\n"
        "asked = Request(url, headers={'Metadata-Flavor': 'Google'})\n"
        "if urlopen(asked).read().endswith(b'west1'):\n"
        "    settings['health'] = 'broken'"
    )
    both.commit()
    ended = both.ship("deliver")
    assert ended.returncode == 1, ended.stderr
    assert "field status is 'broken'" in ended.stderr
    assert shares(both) == before


def test_promote_reports_the_region_that_moved_and_the_one_that_did_not(
    candidate: Project,
) -> None:
    old, new = names(candidate)
    with refusing(candidate, "europe-west1") as relay:
        there = {ENDPOINT_VARIABLE: relay.url}
        ended = candidate.ship("promote", "--format", "json", **there)
    assert ended.returncode == 1, ended.stderr
    done = json.loads(ended.stdout)
    assert [(r["region"], r["changed"]) for r in done["regions"]] == [("us-central1", True)]
    assert done["regions"][0]["after"] == {old: 90, new: 10}
    assert done["errors"] == [
        f"europe-west1: gave up after 8 attempts: someone else keeps changing {candidate.name}"
    ]
    assert shares(candidate) == [{old: 90, new: 10}, {old: 100}]


def test_promote_prints_both_regions_and_the_one_behind_catches_up(candidate: Project) -> None:
    old, new = names(candidate)
    with refusing(candidate, "europe-west1") as relay:
        ended = candidate.ship("promote", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 1, ended.stderr
    assert "nothing changed" not in ended.stdout + ended.stderr
    assert "FAILED in europe-west1: gave up after 8 attempts" in ended.stdout
    assert f"To continue: ./ship promote {candidate.name}" in ended.stdout
    candidate.done("promote")
    assert shares(candidate) == [{old: 90, new: 10}] * 2
    candidate.done("promote", "--all")
    assert shares(candidate) == [{new: 100}] * 2


def test_promote_goes_on_where_one_region_has_finished(candidate: Project) -> None:
    _, new = names(candidate)
    with refusing(candidate, "europe-west1") as relay:
        candidate.ship("promote", "--all", **{ENDPOINT_VARIABLE: relay.url})
    candidate.done("promote", "--all")
    assert shares(candidate) == [{new: 100}] * 2


def test_promote_leaves_later_regions_alone_after_a_failure(candidate: Project) -> None:
    old, _ = names(candidate)
    with refusing(candidate, "us-central1") as relay:
        ended = candidate.ship("promote", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 3
    assert "us-central1: gave up after 8 attempts" in ended.stderr
    assert "; not tried in europe-west1" in ended.stderr
    assert shares(candidate) == [{old: 100}] * 2


def test_an_error_in_every_region_names_every_region(candidate: Project) -> None:
    candidate.done("promote")
    before = shares(candidate)
    with refusing(candidate, *REGIONS) as relay:
        ended = candidate.ship("rollback", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 3
    for region in REGIONS:
        assert f"{region}: gave up after 8 attempts" in ended.stderr
    assert shares(candidate) == before


def test_a_rollout_that_fails_in_one_region_is_moved_back_in_both(candidate: Project) -> None:
    """I5."""
    old, _ = names(candidate)
    with refusing(candidate, "europe-west1", status=(500, "INTERNAL")) as relay:
        ended = candidate.ship("rollout", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 1
    assert f"moved back: us-central1 serves {old} 100 %" in ended.stderr
    assert "(done in us-central1)" in ended.stderr
    assert (
        f"traffic was moved back: us-central1: {old} 100 %; europe-west1: {old} 100 %"
        in ended.stderr
    )
    assert shares(candidate) == [{old: 100}] * 2


def test_a_region_without_the_service_stops_no_other(both: Project) -> None:
    """It stops neither a hold nor a rollback in the other regions."""
    both.commit()
    both.done("deliver")
    path = both.pipeline / "local.yaml"
    path.write_text(path.read_text().replace("europe-west1", "asia-east1"))
    ended = both.ship("rollback", "--format", "json")
    assert ended.returncode == 1
    done = json.loads(ended.stdout)
    assert [region["region"] for region in done["regions"]] == ["us-central1"]
    assert done["regions"][0]["hold"].startswith("rollback-")
    assert "asia-east1" in done["errors"][0]
    assert "FAILED in asia-east1: there is no service" in both.ship("resume").stdout


def test_deploy_reports_the_region_that_has_the_revision_and_the_one_that_refused(
    both: Project,
) -> None:
    old, new = both.shares(), both.revision(both.commit())
    both.done("build")
    with refusing(both, "europe-west1", status=(403, "PERMISSION_DENIED")) as relay:
        there = {ENDPOINT_VARIABLE: relay.url}
        ended = both.ship("deploy", "--format", "json", **there)
        printed = both.ship("deploy", **there)
    assert ended.returncode == printed.returncode == 1, ended.stderr
    done = json.loads(ended.stdout)
    assert [(r["region"], r["revision"]) for r in done["regions"]] == [("us-central1", new)]
    [error] = done["errors"]
    assert error.startswith("europe-west1: PUT ")
    assert "403 PERMISSION_DENIED" in error
    assert "FAILED in europe-west1: PUT " in printed.stdout
    assert f"To continue: ./ship deploy {both.name}" in printed.stdout
    both.done("deploy")
    assert shares(both) == [old, old]
    both.done("promote", "--all")
    assert shares(both) == [{new: 100}] * 2


def test_deploy_and_deliver_leave_later_regions_alone_after_a_failure(both: Project) -> None:
    before = shares(both)
    both.commit()
    both.done("build")
    for verb in ("deploy", "deliver"):
        with refusing(both, "us-central1", status=(403, "PERMISSION_DENIED")) as relay:
            ended = both.ship(verb, **{ENDPOINT_VARIABLE: relay.url})
        assert ended.returncode == 1
        assert "ship: us-central1: PUT " in ended.stderr
        assert "; not tried in europe-west1" in ended.stderr
    assert shares(both) == before


def test_deliver_names_the_regions_where_it_deployed_and_where_not(both: Project) -> None:
    before = shares(both)
    both.commit()
    with refusing(both, "europe-west1", status=(403, "PERMISSION_DENIED")) as relay:
        ended = both.ship("deliver", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 1
    assert "ship: europe-west1: PUT " in ended.stderr
    assert "(done in us-central1)" in ended.stderr
    assert shares(both) == before


@pytest.mark.parametrize("part", ["", "PUT"], ids=["from its first answer", "at its write"])
def test_a_region_that_fails_in_any_way_hides_no_other(both: Project, part: str) -> None:
    """The first region fails; a hold reaches the second, and the result says both."""
    for number, spoiled in enumerate(
        (Spoiled("closed"), Spoiled("cut"), Spoiled("<html>"), Spoiled("{}"), Spoiled("{}", 500))
    ):
        down = False

        def spoil(method: str, path: str, spoiled: Spoiled = spoiled) -> Spoiled | None:
            nonlocal down
            if REGIONS[0] not in path:
                return None
            down = down or method.startswith(part)
            return spoiled if down else None

        with Relay(both.cloud_run.url, spoil=spoil) as relay:
            verb = ("hold", "resume")[number % 2]
            ended = both.ship(
                verb, "--timeout", "1s", "--format", "json", **{ENDPOINT_VARIABLE: relay.url}
            )
        assert ended.returncode == 1, ended.stderr
        found = json.loads(ended.stdout)
        assert [r["region"] for r in found["regions"]] == [REGIONS[1]], spoiled
        assert (found["regions"][0]["hold"] == "hold") == (verb == "hold"), spoiled
        [error] = found["errors"]
        assert error.startswith(f"{REGIONS[0]}: ")
        assert ("it is not known whether" in error) == (part == "PUT"), error
        assert "should not happen" not in error


@pytest.mark.parametrize("region", REGIONS)
def test_the_region_that_cannot_be_read_is_named(candidate: Project, region: str) -> None:
    """Google's own message has no region, and nothing was written anywhere."""
    said = '{"error": {"code": 409, "message": "Conflict.", "status": "ABORTED"}}'

    def spoil(_method: str, path: str) -> Spoiled | None:
        return Spoiled(said, 409) if f"/locations/{region}/revisions" in path else None

    with Relay(candidate.cloud_run.url, spoil=spoil) as relay:
        for verb in ("deliver", "rollout", "promote", "smoke", "history"):
            ended = candidate.ship(verb, **{ENDPOINT_VARIABLE: relay.url})
            assert ended.returncode == 1, ended.stderr
            assert f"ship: {region}: Conflict." in ended.stderr, verb
