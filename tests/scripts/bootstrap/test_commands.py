"""The commands that bootstrap prints or runs: gcloud's and gh's."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.names import project_number
from scripts.setup import main_branch
from tests.conftest import ROOT
from tests.github_rest import GitHub, needs_gh
from tests.scripts.bootstrap_help import CLOUD_BUILD, CONNECTED, IDS, OPS, STAGING, Team, without_gh


def bootstrap(
    team: Team, github_com: GitHub, env: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run it as someone who is logged in to GitHub, with the ruleset in the repository."""
    file = team.project.folder / main_branch.FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / main_branch.FILE, file)
    return team.project.ship(
        *("bootstrap", "--env", env, "--repository", "acme/app", *words),
        GOOGLE_APPLICATION_CREDENTIALS=str(team.admin), **github_com.env(),
    )  # fmt: skip


@needs_gh
def test_gh_gives_the_numbers_protects_and_sets_the_variables(
    team: Team, github_com: GitHub
) -> None:
    explained = bootstrap(team, github_com, "staging", "--explain")
    assert explained.returncode == 0, explained.stderr
    assert "gh variable set DEPLOYER" in explained.stdout
    assert f"--input={main_branch.FILE}" in explained.stdout
    assert github_com.writes == [], "an explanation changes nothing (I10)"
    made = bootstrap(team, github_com, "staging", "--yes")
    assert made.returncode == 0, made.stderr
    assert "ruleset main" in made.stdout
    plan = team.access("staging")
    assert github_com.variables == {
        "": plan.repository_variables,
        "staging": plan.environment_variables,
    }
    assert [policy["name"] for policy in github_com.policies["staging"]] == ["main"]
    assert [one["name"] for one in github_com.rulesets.values()] == ["main"]
    writes = len(github_com.writes)
    again = bootstrap(team, github_com, "staging", "--yes", "--format", "json")
    assert (json.loads(again.stdout)["steps"], json.loads(again.stdout)["github"]) == ([], [])
    assert len(github_com.writes) == writes, "the second time nothing is set"
    # Production needs an approval; what GitHub refuses is said, and the rest is done.
    github_com.private, github_com.plan = True, "team"
    refused = bootstrap(team, github_com, "production", "--yes", "--reviewer", "alice")
    assert refused.returncode == 1
    assert "not done: environment production: needs an approval by alice" in refused.stdout
    assert "required reviewers on Enterprise only" in " ".join(refused.stdout.split())
    assert github_com.variables["production"]["DEPLOYER"].startswith("deploy-production")
    github_com.private = False
    shown, told = on_a_terminal(team, github_com, "production", "nobody", "alice", "y")
    assert told.count("Who must approve a delivery to production?") == 2
    assert "nobody: GitHub shows no such user" in told
    assert "Make this change? [y/N]" in told
    assert "alice is the only reviewer of production" in shown
    assert github_com.environments["production"]["reviewers"] == [{"type": "User", "id": 101}]
    assert github_com.environments["production"]["prevent_self_review"] is True


def on_a_terminal(team: Team, github_com: GitHub, env: str, *lines: str) -> tuple[str, str]:
    """Type lines into bootstrap, which must succeed; return its output and its errors."""
    opened, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "scripts"), "bootstrap", "--env", env, *IDS],
        cwd=team.project.folder, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **github_com.env(), "GOOGLE_APPLICATION_CREDENTIALS": str(team.admin)},
        text=True,
    ) as running:  # fmt: skip
        os.write(opened, "".join(f"{line}\n" for line in lines).encode())
        shown, told = running.communicate(timeout=60)
    os.close(opened)
    os.close(terminal)
    assert running.returncode == 0, told
    return shown, told


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "gh is not installed"), (CLOUD_BUILD, "Cloud Build has no reviewers")],
)
def test_reviewers_need_gh_and_githubs_jobs(team: Team, words: tuple[str, ...], said: str) -> None:
    path = without_gh(team.folder)
    ended = team.bootstrap("production", "--reviewer", "alice", "--dry-run", *words, PATH=path)
    assert ended.returncode == 2
    assert f"--reviewer alice: {said}" in ended.stderr


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="left out: gcloud is not installed")
def test_gcloud_accepts_every_command_that_is_explained(team: Team, tmp_path: Path) -> None:
    commands = explained(team, "staging")
    team.set_up("staging")
    assert explained(team, "staging") == []
    # All other kinds of steps.
    plan = team.access("staging")
    http = team.owner_of_projects()
    pool = f"projects/{OPS}/locations/global/workloadIdentityPools/{plan.provider.pool}"
    assert http.delete(f"{team.owner.url}/v1/{pool}/providers/{plan.provider.id}").ok
    file = team.project.pipeline / "staging.yaml"
    file.write_text(file.read_text().replace("access: private", "access: public"))
    condition = {"title": "x", "expression": "true"}
    for resource in dict.fromkeys(b.resource for b in plan.bindings):
        team.give(resource.path, "roles/owner", plan.deployer.member)
        if resource.kind == "project":
            team.give(resource.path, "roles/editor", plan.deployer.member, condition=condition)
    commands += explained(team, "staging", "--prune")
    commands += explained(team, "staging", *CLOUD_BUILD)
    commands += explained(team, "staging", "--binary-authorization", "enforce")
    team.set_up("staging", *CLOUD_BUILD)
    triggers = f"{team.owner.url}/v1/{CONNECTED.rpartition('/conn')[0]}/triggers"
    for name in ("deliver-staging-4711", "rollback-staging-4711"):
        assert http.patch(
            f"{triggers}/{name}", json={"serviceAccount": "projects/x/serviceAccounts/y"}
        ).ok
    commands += explained(team, "staging", *CLOUD_BUILD)
    commands = [*dict.fromkeys(commands)]
    assert len(commands) > 25
    checked = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={write(tmp_path, commands)}"],
        env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")},
        # Input for a pipe: gcloud reads the file when it parses the command.
        input="[]", capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    answers = json.loads(checked.stdout)
    assert len(answers) == len(commands)
    assert not [a.get("error_message") for a in answers if not a.get("success")]


def test_an_explanation_needs_no_account(team: Team, tmp_path: Path) -> None:
    """Once its names are replaced, it is the one that someone with an account gets."""
    whole = explained(team, "staging")
    ended = team.project.ship(
        "bootstrap", "--env", "staging", "--explain", "--repository", "acme/app",
        PATH=without_gh(team.folder), HOME=str(tmp_path), GOOGLE_APPLICATION_CREDENTIALS="",
        CLOUDSDK_CONFIG=str(tmp_path), NO_GCE_CHECK="true",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    text = ended.stdout
    assert text.startswith("# What exists could not be read, so every step is listed: ")
    assert "#   OWNER_ID: the field owner.id of https://api.github.com/repos/acme/app" in text
    assert f"#   NUMBER_OF_{OPS}: gcloud projects describe {OPS}" in text
    for name, number in {
        "REPOSITORY_ID": "4711",
        "OWNER_ID": "42",
        f"NUMBER_OF_{OPS}": project_number(OPS),
        f"NUMBER_OF_{STAGING}": project_number(STAGING),
    }.items():
        text = text.replace(name, number)
    assert commands_in(text) == whole


def explained(team: Team, env: str, *words: str) -> list[str]:
    """Return the gcloud commands that are printed, without what is piped into them."""
    ended = team.bootstrap(env, "--explain", *words, PATH=without_gh(team.folder))
    assert ended.returncode == 0, ended.stderr
    return commands_in(ended.stdout)


def commands_in(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.startswith(("#", "gh "))]
    return [line[line.index("gcloud ") :] for line in lines]


def write(folder: Path, commands: list[str]) -> Path:
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": command} for command in commands]))
    return file
