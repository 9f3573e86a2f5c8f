"""`./ship bootstrap --trigger cloud-build`: triggers and accounts for each environment."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from scripts.errors import UsageError
from scripts.setup import permissions, triggers
from tests.scripts.bootstrap_help import CLOUD_BUILD, CONNECTED, OPS, STAGING, Team

ENVIRONMENTS = ("staging", "production")


def email_of(env: str) -> str:
    return f"build-{env}-4711@{OPS}.iam.gserviceaccount.com"


def test_each_environment_gets_triggers_and_an_account_that_delivers_there(team: Team) -> None:
    for env in ENVIRONMENTS:
        steps = team.set_up(env, *CLOUD_BUILD)["steps"]
        assert not [s for s in steps if "pool" in s["what"] or "workloadIdentity" in s["what"]]
        assert team.plan(env, *CLOUD_BUILD)["steps"] == []
    http, base = team.owner_of_projects(), f"{team.owner.url}/v1/{CONNECTED.rpartition('/conn')[0]}"
    triggers = {one["name"]: one for one in http.get(f"{base}/triggers").json()["triggers"]}
    assert sorted(triggers) == sorted(
        f"{verb}-{env}-4711"
        for verb in ("deliver", "promote", "resume", "rollback")
        for env in ENVIRONMENTS
    )
    for name, one in triggers.items():
        account = f"projects/{OPS}/serviceAccounts/{email_of(name.split('-')[1])}"
        assert one["serviceAccount"] == one["build"]["serviceAccount"] == account
        # No file of a branch, and no value that a manual run may replace except user input.
        assert not {"filename", "gitFileSource", "substitutions"} & {*one}
        values = json.dumps([step.get("env") for step in one["build"]["steps"]])
        inputs = {"$_PERCENT", "$_REASON", "$_REVISION", "$_SERVICE"}
        assert {*re.findall(r"\$\w+", values)} <= inputs
    waits = {name for name, one in triggers.items() if one.get("approvalConfig")}
    assert waits == {"deliver-production-4711", "promote-production-4711"}
    staging = triggers["deliver-staging-4711"]
    assert staging["repositoryEventConfig"]["push"] == {"branch": "^main$"}
    assert "ENVIRONMENT=staging" in staging["build"]["steps"][2]["env"]
    # A change by hand is corrected; fields that Google adds are not a difference.
    staging["build"]["steps"][0]["script"] = "true"
    change = f"{base}/triggers/deliver-staging-4711?updateMask=build"
    assert http.patch(change, json={"build": staging["build"]}).ok
    [step] = team.set_up("staging", *CLOUD_BUILD)["steps"]
    assert (step["does"], step["what"]) == ("change", "trigger deliver-staging-4711: build")
    delivers_with(team)


def delivers_with(team: Team) -> None:
    """Check what each account can do. Here a job impersonates it, for the test."""

    def ship(account: str, *words: str) -> subprocess.CompletedProcess[str]:
        return team.project.ship(*words, GOOGLE_APPLICATION_CREDENTIALS=str(files[account]))

    files = {}
    for env in ENVIRONMENTS:
        email = email_of(env)
        team.give(f"projects/{OPS}/serviceAccounts/{email}", permissions.IMPERSONATE,
                  f"principalSet://iam.googleapis.com/{team.owner.pool}/*")  # fmt: skip
        job = team.owner.job()
        files[env] = team.owner.credentials(team.folder / f"{env}.json", job, email)
    ended = ship("production", "build", "--env", "staging")
    assert "storage.objects.create" in ended.stderr
    for words in (("build",), ("deliver",)):
        ended = ship("staging", *words, "--env", "staging")
        assert ended.returncode == 0, ended.stderr
    ended = ship("staging", "deliver", "--env", "production")
    assert ended.returncode == 1
    assert "PERMISSION_DENIED" in ended.stderr
    ended = ship("production", "deliver", "--env", "production")
    assert ended.returncode == 0, ended.stderr


def test_a_trigger_that_ran_a_file_of_the_repository_gets_its_build(team: Team) -> None:
    """As an older version of Shipway made it."""
    team.set_up("staging", *CLOUD_BUILD)
    http, region = team.owner_of_projects(), CONNECTED.rpartition("/conn")[0]
    url = f"{team.owner.url}/v1/{region}/triggers/promote-staging-4711"
    old = {"gitFileSource": {"path": "cloudbuild/promote.yaml", "repository": CONNECTED,
                             "revision": "refs/heads/main", "repoType": "GITHUB"}}  # fmt: skip
    assert http.patch(url, json=old, params={"updateMask": "gitFileSource"}).ok
    [step] = team.set_up("staging", *CLOUD_BUILD)["steps"]
    assert step["what"] == "trigger promote-staging-4711: build"
    assert "gitFileSource" not in http.get(url).json()


def test_only_the_values_that_are_known_are_written_into_a_build(tmp_path: Path) -> None:
    (tmp_path / "build.yaml").write_text(
        "steps:\n- {env: [A=$_A, 'B=${_A}', C=$$_A, D=$_AB, E=$_REASON], script: echo $_A}\n"
    )
    made = triggers.rendered(tmp_path, "build.yaml", {"_A": "one"})
    env = ["A=one", "B=one", "C=$$_A", "D=$_AB", "E=$_REASON"]
    assert made == {"steps": [{"env": env, "script": "echo $_A"}]}
    (tmp_path / "build.yaml").write_text("steps: []\n")
    with pytest.raises(UsageError, match="no build steps"):
        triggers.rendered(tmp_path, "build.yaml", {})


@pytest.mark.parametrize(
    "words",
    [
        ["--trigger", "cloud-build"],
        ["--connection", CONNECTED],
        ["--trigger", "cloud-build", "--connection", "acme/app"],
        ["--trigger", "cloud-build", "--connection", CONNECTED.replace(OPS, STAGING)],
    ],
)
def test_a_wrong_connection_is_refused(team: Team, words: list[str]) -> None:
    ended = team.bootstrap("staging", "--yes", *words)
    assert ended.returncode == 2
    assert "--connection" in ended.stderr
    assert len(team.plan("staging")["steps"]) > 10
