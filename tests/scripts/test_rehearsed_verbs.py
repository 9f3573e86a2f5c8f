"""The workflows of the verbs, and Cloud Build's files for them, in one prepared world.

No test needs what another one did: each ends with the service as it was, without a hold.
"""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.command.progress import Progress
from scripts.errors import Failed
from scripts.rehearse import before
from tests.conftest import ROOT
from tests.scripts.rehearse_help import Runs, opened, results
from tests.scripts.test_rehearse import Fork

pytestmark = pytest.mark.xdist_group("rehearsed-verbs")  # their world is made once

BROKEN = {"shop/settings.json": json.dumps(
    {"note": "third", "start": "listen", "health": "broken", "code": 200}
)}  # fmt: skip
OTHER = """
name: Other
on:
  workflow_dispatch:
permissions: {}
jobs:
  production:
    uses: ./.github/workflows/deliver-to.yml
    permissions: {contents: read, id-token: write}
    with:
      environment: production
      services: shop
      digests: sha256:0000000000000000000000000000000000000000000000000000000000000000
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A commit is delivered everywhere; the next one to staging, and production has it, too."""
    fork = Fork(tmp_path_factory.mktemp("fork"))
    for file in (ROOT / "cloudbuild").glob("*.yaml"):
        fork.write(f"cloudbuild/{file.name}", file.read_text())
    fork.git("add", "--all")
    fork.git("commit", "--quiet", "--amend", "--no-edit")
    with opened(fork.folder, tmp_path_factory.mktemp("world")) as world:
        before.prepare(world, "promote", "production", "", Progress())
        yield Runs(world)


@pytest.fixture
def candidate(runs: Runs) -> Runs:
    """The commit is deployed to production, also if a test has rolled it back."""
    digest = runs.world.ship("build", "--env", "staging")["digest"]
    words = ("deploy", "--env", "production", "--digest", digest)
    runs.world.ship(*words, environment="production")
    return runs


class Hostile:
    """A reason that makes a file if a shell reads it."""

    def __init__(self) -> None:
        self.made = made = Path(tempfile.gettempdir(), f"made-{uuid.uuid4().hex[:8]}")
        self.reason = f"--yes $(touch {made}) `touch {made}`; touch {made} \" ' & touch {made}"


def test_githubs_verbs(candidate: Runs) -> None:
    """A rollback needs no build, no pull and no tests; no shell runs what a user writes."""
    runs = candidate
    assert results(runs.github("promote", environment="production")) == {"promote": "success"}
    checked = re.search(r"checks passed at (\S+)", runs.told)
    assert checked
    assert f"the deployment's URL at GitHub: {checked[1]}\n" in runs.told
    assert "100 %   90 %" in runs.told
    assert "0 %     10 %" in runs.told
    done = runs.github("promote", environment="production", percent="35")
    assert results(done) == {"promote": "success"}, runs.told
    assert "10 %    35 %" in runs.told

    hostile = Hostile()
    done = runs.github("rollback", environment="production", reason=hostile.reason)
    assert results(done) == {"rollback": "success"}, runs.told
    assert "on hold" in runs.told
    assert "by someone, 2" in runs.told
    assert hostile.reason in runs.told
    assert not hostile.made.exists()
    steps = [line for line in runs.told.splitlines() if line.startswith("rollback / ")]
    assert len(steps) == 5
    assert "build" not in runs.told.partition(steps[-2])[2]

    assert results(runs.github("resume", environment="production")) == {"resume": "success"}
    assert "released: rollback-" in runs.told
    assert "the deployment's URL at GitHub: http" in runs.told


def test_cloud_builds_verbs(candidate: Runs) -> None:
    runs, there, hostile = candidate, {"_ENVIRONMENT": "production"}, Hostile()
    assert {*runs.cloud_build("promote", **there, _PERCENT="35").values()} == {"SUCCESS"}, runs.told
    assert "0 %     35 %" in runs.told
    done = runs.cloud_build("rollback", **there, _REASON=hostile.reason)
    assert {*done.values()} == {"SUCCESS"}, runs.told
    assert "on hold" in runs.told
    assert "by Cloud Build (rollback), 2" in runs.told
    assert hostile.reason in runs.told
    assert not hostile.made.exists()
    assert {*runs.cloud_build("resume", **there, _REASON="fixed").values()} == {"SUCCESS"}


def test_a_resume_is_rehearsed_with_a_hold(runs: Runs) -> None:
    before.prepare(runs.world, "resume", "staging", "", Progress())
    assert results(runs.github("resume", environment="staging")) == {"resume": "success"}
    assert "released: rollback-" in runs.told


def test_a_failing_smoke_check_ends_a_delivery(runs: Runs) -> None:
    with runs.merged(BROKEN):
        done = runs.github("deliver")
        ended = {"build": "success", "staging": "failure", "production": "skipped"}
        assert results(done) == ended, runs.told
        assert [job.failed_step for job in done] == ["", "Deploy, smoke-check, shift traffic", ""]
        assert '"status": "broken"' in runs.told
        assert "rollout" not in runs.told
        ends = runs.cloud_build("deliver", _ENVIRONMENT="staging")
        assert ends == {"main": "SUCCESS", "docker": "SUCCESS", "deliver": "FAILURE"}
        assert '"status": "broken"' in runs.told


def test_another_workflow_that_calls_the_same_file_is_refused(runs: Runs) -> None:
    """The condition names the file that the run starts from, not only the one with the job."""
    with runs.merged({".github/workflows/other.yml": OTHER}):
        assert results(runs.github("other")) == {"production": "failure"}
    assert "rejected by the attribute condition" in runs.told


def test_a_job_without_the_permission_gets_no_token(runs: Runs) -> None:
    name = ".github/workflows/rollback.yml"
    text = (ROOT / name).read_text().replace("      id-token: write", "      issues: write")
    with runs.merged({name: text}):
        done = runs.github("rollback", environment="staging")
    assert results(done) == {"rollback": "failure"}
    assert "the permission 'id-token: write' are needed" in runs.told


def test_actions_that_cannot_be_fetched(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(Failed, match="act could not fetch third-party actions from Git") as caught:
        runs.github("rollback", fetch=True, environment="staging")
    told = "\n".join(caught.value.evidence)
    assert "Unable to clone https://github.com/google-github-actions/auth" in told
    assert "--actions FOLDER" in caught.value.hint
