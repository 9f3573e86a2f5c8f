"""The commands that bootstrap prints or runs: gcloud's and gh's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.bootstrap_help import CLOUD_BUILD, CONNECTED, OPS, Team, without_gh

GH = """#!{python}
import json, os, sys
state = {state!r}
words = sys.argv[1:]
known = json.load(open(state))
known["calls"].append(words)
env = next((w.partition("=")[2] for w in words if w.startswith("--env=")), "")
if words[0] == "api" and words[1] == "repos/acme/app":
    print(json.dumps({{"id": 4711, "owner": {{"id": 42}}}}))
elif words[0] == "api" and words[1] == "--method=PUT":
    known["variables"][words[2].rpartition("/")[2]] = {{}}
elif words[0] == "api":
    sys.exit(words[1].rpartition("/")[2] not in known["variables"])
elif words[1] == "list":
    there = known["variables"].get(env, {{}})
    print(json.dumps([{{"name": n, "value": v}} for n, v in there.items()]))
elif words[1] == "set":
    known["variables"][env][words[2]] = words[3].partition("=")[2]
json.dump(known, open(state, "w"))
"""


def test_gh_gives_the_numbers_and_sets_the_variables(team: Team) -> None:
    """With a stand-in for gh that keeps variables as GitHub does."""
    state = team.folder / "gh.json"
    state.write_text(json.dumps({"variables": {"": {}}, "calls": []}))
    program = team.bin / "gh"
    program.write_text(GH.format(python=sys.executable, state=str(state)))
    program.chmod(0o755)
    path = f"{team.bin}{os.pathsep}{os.environ['PATH']}"
    words = ("bootstrap", "--env", "staging", "--repository", "acme/app")
    for extra in (("--dry-run",), ("--yes",), ("--yes",)):
        ended = team.project.ship(
            *words, *extra, PATH=path, GOOGLE_APPLICATION_CREDENTIALS=str(team.admin)
        )
        assert ended.returncode == 0, ended.stderr
        if extra == ("--dry-run",):
            assert json.loads(state.read_text())["variables"] == {"": {}}
            assert "gh variable set DEPLOYER" in ended.stdout
        else:
            assert "gh variable set" not in ended.stdout
    known = json.loads(state.read_text())
    plan = team.access("staging")
    assert known["variables"] == {
        "": plan.repository_variables,
        "staging": plan.environment_variables,
    }
    assert [c[1] for c in known["calls"]].count("set") == 3, "the second time nothing is set"
    assert not [c for c in known["calls"] if any("eyJ" in w or "ya29" in w for w in c)]


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


def explained(team: Team, env: str, *words: str) -> list[str]:
    """Return the gcloud commands that are printed, without what is piped into them."""
    ended = team.bootstrap(env, "--explain", *words, PATH=without_gh())
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if not line.startswith(("#", "gh "))]
    return [line[line.index("gcloud ") :] for line in lines]


def write(folder: Path, commands: list[str]) -> Path:
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": command} for command in commands]))
    return file
