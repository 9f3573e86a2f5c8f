"""From a bare project to a delivery: what `ship bootstrap` makes is enough, and is all it makes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LocalCloudRun
from tests.identity_help import Owner, account
from tests.scripts.conftest import Project

NAME = "svc"
ADMIN = "admin@acme-staging.iam.gserviceaccount.com"
OPS, STAGING, PRODUCTION = "team-ops", "team-staging", "team-prod"
IDS = ("--repository", "acme/app", "--repository-id", "4711", "--owner-id", "42")
ENVIRONMENT = """
project: {project}
regions: [us-central1]
registry: us-central1-docker.pkg.dev/team-ops/services
access: {access}
{after}
endpoint: {endpoint}
builder: pack
platform: host
rollout:
  steps: [50, 100]
overlay:
  spec:
    template:
      spec:
        serviceAccountName: runtime@{project}.iam.gserviceaccount.com
"""


class Team:
    """A repository, bare projects, and somebody who owns them."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, access: str = "private") -> None:
        self.folder = folder
        self.project = Project(folder / "repository", cloud_run, NAME)
        self.write("staging", STAGING, cloud_run, access)
        self.write("production", PRODUCTION, cloud_run, access, "after: staging")
        self.project.commit()
        self.owner = Owner(cloud_run.url)
        self.owner.trust_github()
        self.owner.let_github_impersonate(ADMIN)
        for name in (OPS, STAGING, PRODUCTION):
            self.owner.post(
                f"{cloud_run.url}/_local/projects",
                {"projectId": name, "owner": f"serviceAccount:{ADMIN}"},
            )
        self.admin = self.owner.credentials(folder / "admin.json", self.owner.job(), ADMIN)
        self.bin = folder / "bin"
        self.bin.mkdir()

    def write(
        self, env: str, project: str, cloud_run: LocalCloudRun, access: str, after: str = ""
    ) -> None:
        text = ENVIRONMENT.format(
            project=project, access=access, after=after, endpoint=cloud_run.url
        )
        (self.project.pipeline / f"{env}.yaml").write_text(text)

    def bootstrap(self, env: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.project.ship(
            "bootstrap", "--env", env, *IDS, *words,
            GOOGLE_APPLICATION_CREDENTIALS=str(self.admin), **more,
        )  # fmt: skip

    def plan(self, env: str, *words: str) -> Any:
        ended = self.bootstrap(env, "--dry-run", "--format", "json", *words)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def set_up(self, env: str, *words: str) -> Any:
        ended = self.bootstrap(env, "--yes", "--format", "json", *words)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def job(self, env: str, variables: dict[str, str], *words: str) -> str:
        """Type a command as a job that has these variables; the build's where it is the PUSHER."""
        claims: dict[str, Any] = {} if "PUSHER" in variables else {"environment": env}
        self.owner.provider = variables["WORKLOAD_IDENTITY_PROVIDER"]
        email = variables.get("PUSHER") or variables["DEPLOYER"]
        file = self.owner.credentials(self.folder / "job.json", self.owner.job(**claims), email)
        ended = self.project.ship(*words, "--env", env, GOOGLE_APPLICATION_CREDENTIALS=str(file))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    cloud_run = LocalCloudRun(tmp_path / "state", "--iam", "enforce")
    made = Team(tmp_path, cloud_run)
    yield made
    made.owner.http.close()
    cloud_run.stop()


def test_from_bare_projects_to_production(team: Team) -> None:
    first = team.plan("staging")
    assert [s["does"] for s in first["steps"]].count("enable") == 2
    assert team.plan("staging") == first, "a dry run changes nothing"
    made = team.set_up("staging")
    assert [s["what"] for s in made["steps"]] == [s["what"] for s in first["steps"]]
    assert team.plan("staging")["steps"] == []
    team.set_up("production")
    for env in ("staging", "production"):
        assert team.set_up(env)["steps"] == [], "typed again it has nothing to do"
        variables = team.plan(env)["variables"]
        build = {k: v for k, v in variables.items() if k != "DEPLOYER"}
        deploy = {k: v for k, v in variables.items() if k != "PUSHER"}
        if env == "staging":
            team.job("staging", build, "build")
        team.job(env, deploy, "deliver")
        team.job(env, deploy, "status")
    assert account
