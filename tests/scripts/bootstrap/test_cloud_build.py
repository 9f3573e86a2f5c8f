"""`./ship bootstrap --trigger cloud-build`: triggers, and one account that delivers."""

from __future__ import annotations

import pytest

from scripts.setup import permissions
from tests.scripts.bootstrap_help import CLOUD_BUILD, CONNECTED, OPS, STAGING, Team


def test_cloud_build_gets_triggers_and_one_account_that_delivers(team: Team) -> None:
    for env in ("staging", "production"):
        steps = team.set_up(env, *CLOUD_BUILD)["steps"]
        assert not [s for s in steps if "pool" in s["what"] or "workloadIdentity" in s["what"]]
        assert team.plan(env, *CLOUD_BUILD)["steps"] == []
    http, base = team.owner_of_projects(), f"{team.owner.url}/v1/{CONNECTED.rpartition('/conn')[0]}"
    triggers = {one["name"]: one for one in http.get(f"{base}/triggers").json()["triggers"]}
    assert sorted(triggers) == [
        "deliver-4711", "promote-production-4711", "promote-staging-4711",
        "resume-production-4711", "resume-staging-4711", "rollback-production-4711",
        "rollback-staging-4711",
    ]  # fmt: skip
    email = f"build-4711@{OPS}.iam.gserviceaccount.com"
    for one in triggers.values():
        assert one["serviceAccount"] == f"projects/{OPS}/serviceAccounts/{email}"
        assert one["substitutions"]["_SERVICE_ACCOUNT"] == email
    assert triggers["deliver-4711"]["repositoryEventConfig"]["push"] == {"branch": "^main$"}
    assert triggers["rollback-staging-4711"]["substitutions"]["_ENVIRONMENT"] == "staging"
    # A change by hand is corrected; fields that Google adds are not a difference.
    own = {"repositoryEventConfig": {"repository": CONNECTED, "push": {"branch": ".*"}}}
    assert http.patch(f"{base}/triggers/deliver-4711", json=own).ok
    [step] = team.set_up("staging", *CLOUD_BUILD)["steps"]
    assert (step["does"], step["what"]) == ("change", "trigger deliver-4711: repositoryEventConfig")
    # The build's account delivers everywhere. Here a job impersonates it, for the test.
    team.give(f"projects/{OPS}/serviceAccounts/{email}", permissions.IMPERSONATE,
              f"principalSet://iam.googleapis.com/{team.owner.pool}/*")  # fmt: skip
    file = team.owner.credentials(team.folder / "build.json", team.owner.job(), email)
    for verb, env in (
        ("build", "staging"), ("deliver", "staging"), ("deliver", "production"),
    ):  # fmt: skip
        words = (verb, "--env", env)
        ended = team.project.ship(*words, GOOGLE_APPLICATION_CREDENTIALS=str(file))
        assert ended.returncode == 0, ended.stderr


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
