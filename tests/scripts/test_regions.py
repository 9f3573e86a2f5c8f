"""A service in two regions: every verb does the same in both; a failure in one is one in both."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.scripts.conftest import Project

REGIONS = ["us-central1", "europe-west1"]


@pytest.fixture
def both(project: Project) -> Project:
    """A first release in two regions."""
    path = project.pipeline / "local.yaml"
    path.write_text(path.read_text().replace("[us-central1]", f"[{', '.join(REGIONS)}]"))
    project.commit()
    project.done("deliver")
    return project


def shares(project: Project) -> list[Any]:
    """Each region's shares, as status tells them."""
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


def test_one_region_s_trouble_is_not_another_s(both: Project) -> None:
    """A region without the service stops neither a hold nor a rollback in the others."""
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
    assert "FAILED: there is no service" in both.ship("resume").stdout
