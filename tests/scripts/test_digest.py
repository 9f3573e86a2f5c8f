"""`--digest` delivers an image that was built before, and builds nothing (I2)."""

from __future__ import annotations

import pytest
import requests

from tests.scripts.conftest import Project
from tests.scripts.test_bad_input import error

UNKNOWN = f"sha256:{'0' * 64}"


def tagged(project: Project, commit: str) -> bool:
    """Return whether the registry has an image of this commit."""
    path = f"shipway-local/services/{project.name}/manifests/{commit}"
    return requests.get(f"{project.cloud_run.url}/v2/{path}", timeout=10).ok


def test_a_built_image_is_delivered_by_its_digest(project: Project) -> None:
    commit = project.git("rev-parse", "HEAD")
    digest = project.done("build")["digest"]
    done = project.done("deliver", "--digest", digest)
    assert done["digest"] == digest
    container = project.service()["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].endswith(f"@{digest}")
    assert project.shares() == {project.revision(commit): 100}


def test_a_built_image_is_deployed_by_its_digest(served: Project) -> None:
    before = served.shares()
    commit = served.commit()
    digest = served.done("build")["digest"]
    done = served.done("deploy", "--digest", digest)
    assert done["regions"][0]["image"].endswith(f"@{digest}")
    assert served.revision(commit) in served.revisions()
    assert served.shares() == before


@pytest.mark.parametrize("verb", ["deliver", "deploy"])
@pytest.mark.parametrize(
    "digest", ["", "latest", "sha256:abc", UNKNOWN.upper(), f"{UNKNOWN}\n", f"x@{UNKNOWN}"]
)
def test_text_that_is_not_a_digest_is_bad_usage(project: Project, verb: str, digest: str) -> None:
    ended = project.ship(verb, f"--digest={digest}")
    assert ended.returncode == 2
    assert "is not a digest: sha256: and 64 hexadecimal digits" in ended.stderr


def test_an_unknown_digest_is_refused_and_nothing_is_built(served: Project) -> None:
    before = served.service()
    commit = served.commit()
    ended = served.ship("deliver", "--digest", UNKNOWN)
    shown = error(ended, 2)
    assert UNKNOWN in shown
    assert f"./ship build {served.name}" in shown
    assert not tagged(served, commit)
    assert served.service() == before


@pytest.mark.parametrize("verb", ["deliver", "deploy"])
@pytest.mark.parametrize("built", [True, False])
def test_the_digest_of_another_commit_is_refused(served: Project, verb: str, built: bool) -> None:
    before = served.service()
    others = served.done("build")["digest"]
    commit = served.commit()
    own = served.done("build")["digest"] if built else None
    shown = error(served.ship(verb, "--digest", others), 3)
    assert others in shown
    assert f"commit {commit[:7]}" in shown
    assert f"names {own}" in shown if built else "names" not in shown
    assert served.service() == before
    assert tagged(served, commit) is built


def test_a_digest_and_a_builder_contradict_each_other(project: Project) -> None:
    digest = project.done("build")["digest"]
    shown = error(project.ship("deliver", "--digest", digest, "--builder", "cloud-build"), 2)
    assert "--digest never builds" in shown


def test_an_environment_that_comes_after_another_takes_the_digest_that_served_there(
    served: Project,
) -> None:
    """It never builds, with a digest or without."""
    local = (served.pipeline / "local.yaml").read_text()
    (served.pipeline / "live.yaml").write_text(
        local.replace("shipway-local\n", "shipway-live\n", 1) + "after: local\n"
    )
    commit = served.commit()
    error(served.ship("deliver", "--env", "live", "--digest", UNKNOWN), 2)
    assert not tagged(served, commit)
    digest = served.done("build")["digest"]
    shown = error(served.ship("deliver", "--env", "live", "--digest", digest), 3)
    assert "has not served in local" in shown
    assert served.done("deliver")["digest"] == digest
    assert served.done("deliver", "--env", "live", "--digest", digest)["digest"] == digest


def test_a_dry_run_refuses_a_wrong_digest_too(served: Project) -> None:
    """I10: it fails as a real run does."""
    shown = error(served.ship("deliver", "--digest", UNKNOWN, "--dry-run"), 2)
    assert UNKNOWN in shown
