"""Workflows, shell scripts and Dockerfiles: what tools find in them, and the rules of the house.

Each check is also shown a file with the fault that it is there for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.config import pipelines
from scripts.setup import permissions
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TOOLS = Path(sys.executable).parent

# Every action that may be used, at the commit of its release, as its repository's tag names it.
PINS = {
    "actions/checkout": ("v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1"),
    "actions/setup-python": ("v7.0.0", "5fda3b95a4ea91299a34e894583c3862153e4b97"),
    "google-github-actions/auth": ("v3.0.0", "7c6bc770dae815cd3e89ee6cdf493a5fab2cc093"),
    "docker/setup-buildx-action": ("v4.3.0", "37fe631027851001ddb9b187196cc803df7f5f0e"),
    "actions/attest-build-provenance": ("v4.1.0", "a2bbfa25375fe432b6a289bc6b6cd05ecd0c4c32"),
    "actions/upload-artifact": ("v7.0.0", "bbbca2ddaa5d8feaa63e36b76fdaad77386f024f"),
}

pytestmark = pytest.mark.skipif(
    not (TOOLS / "zizmor").exists(),
    reason="left out: the tools of requirements/dev.txt are missing",
)


def tool(name: str, *arguments: object) -> tuple[int, str]:
    """How a tool ends and what it says. It finds the others: actionlint asks shellcheck."""
    ended = subprocess.run(
        [str(TOOLS / name), *map(str, arguments)],
        env={**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def kept() -> list[Path]:
    """The repository's files, as git lists them; new ones too."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def shell_scripts() -> list[Path]:
    def is_shell(file: Path) -> bool:
        with file.open("rb") as opened:
            first = opened.readline(200)
        return file.suffix == ".sh" or bool(re.match(rb"#!.*\b(ba|da)?sh\b", first))

    return [file for file in kept() if is_shell(file)]


def dockerfiles() -> list[Path]:
    return [f for f in kept() if f.name == "Dockerfile" or f.suffix == ".Dockerfile"]


# What the tools find


def zizmor(*files: Path) -> tuple[int, str]:
    return tool("zizmor", "--persona=pedantic", "--offline", "--no-progress", *files)


def schema(name: str, *files: Path) -> tuple[int, str]:
    return tool("check-jsonschema", "--builtin-schema", f"vendor.{name}", *files)


def test_zizmor_finds_nothing() -> None:
    code, said = zizmor(ROOT / ".github")
    assert code == 0, said
    assert "No findings" in said


def test_actionlint_finds_nothing() -> None:
    code, said = tool("actionlint", *WORKFLOWS)
    assert (code, said) == (0, "")


def test_githubs_schemas_hold() -> None:
    code, said = schema("dependabot", ROOT / ".github" / "dependabot.yml")
    assert code == 0, said
    code, said = schema("github-workflows", *WORKFLOWS)
    assert code == 0, said


def test_shellcheck_finds_nothing() -> None:
    scripts = shell_scripts()
    assert ROOT / "ship" in scripts
    code, said = tool("shellcheck", *scripts)
    assert (code, said) == (0, "")


def test_hadolint_finds_nothing() -> None:
    files = dockerfiles()
    for name in pipelines.services(ROOT):
        assert pipelines.load(ROOT, name, "local").source / "Dockerfile" in files
    code, said = tool("hadolint", *files)
    assert (code, said) == (0, "")


GOOD = """
name: Try
on:
  push:
    branches: [main]
permissions: {}
concurrency:
  group: try
  cancel-in-progress: false
jobs:
  try:
    name: Try
    runs-on: ubuntu-latest
    timeout-minutes: 5
    permissions:
      contents: read # check out
    steps:
      - name: Check out
        uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with:
          persist-credentials: false
      - name: Say it
        env:
          TITLE: ${{ github.event.head_commit.message }}
        run: echo "$TITLE"
"""


def test_each_tool_finds_what_it_is_there_for(tmp_path: Path) -> None:
    workflow = tmp_path / ".github" / "workflows" / "try.yml"
    workflow.parent.mkdir(parents=True)
    checks: dict[str, Any] = {
        "zizmor": lambda: zizmor(workflow),
        "actionlint": lambda: tool("actionlint", workflow),
        "schema": lambda: schema("github-workflows", workflow),
    }
    workflow.write_text(GOOD)
    for name, check in checks.items():
        code, said = check()
        assert code == 0, (name, said)
    for name, before, after, word in (
        ("zizmor", '"$TITLE"', '"${{ github.event.head_commit.message }}"', "template-injection"),
        ("zizmor", "          persist-credentials: false", "          clean: true", "artipacked"),
        ("actionlint", "runs-on: ubuntu-latest", "runs-on: ubuntu-latest\n    needs: gone", "gone"),
        ("actionlint", '"$TITLE"', "$TITLE", "SC2086"),
        ("schema", "timeout-minutes: 5", "timeout-minutes: soon", "timeout-minutes"),
    ):
        assert before in GOOD
        workflow.write_text(GOOD.replace(before, after))
        code, said = checks[name]()
        assert code != 0, (name, before)
        assert word in said
    for file, content, run, word in (
        ("bad.sh", "#!/bin/sh\nrm $1\n", lambda f: tool("shellcheck", f), "SC2086"),
        ("Dockerfile", "FROM python\nCMD python\n", lambda f: tool("hadolint", f), "DL3006"),
        ("dependabot.yml", "version: 2\n", lambda f: schema("dependabot", f), "updates"),
    ):
        (tmp_path / file).write_text(content)
        code, said = run(tmp_path / file)
        assert code != 0, file
        assert word in said


# The rules of the house


def problems(text: str) -> list[str]:
    """What a workflow does that none of ours may do."""
    found = []
    document = yaml.safe_load(text)
    triggers = document.get("on", document.get(True))  # YAML 1.1: `on` is a truth
    if "pull_request_target" in triggers:
        found.append("pull_request_target: a stranger's pull request would run with our rights")
    if document.get("permissions") != {}:
        found.append("permissions are not {} at the top")
    for name, job in document["jobs"].items():
        if "timeout-minutes" not in job:
            found.append(f"{name}: no timeout-minutes")
        if "permissions" not in job:
            found.append(f"{name}: no permissions of its own")
        for step in job.get("steps", []):
            if "${{" in str(step.get("run", "")):
                found.append(f"{name}: an expression in a shell: {step['run']}")
    for line in text.splitlines():
        if match := re.match(r"\s*(?:- )?uses:\s*(\S+?)@(\S+)(.*)", line):
            action, commit, comment = match.groups()
            if PINS.get(action) != (comment.strip(" #"), commit):
                found.append(f"{action}: not pinned as PINS says: {line.strip()}")
        elif "uses:" in line:
            found.append(f"no pin: {line.strip()}")
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: str(file.name))
def test_the_rules_of_the_house_hold(workflow: Path) -> None:
    assert problems(workflow.read_text()) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("  push:\n", "  pull_request_target:\n", "pull_request_target"),
        ("permissions: {}\n", "", "not {} at the top"),
        ("permissions: {}\n", "permissions: read-all\n", "not {} at the top"),
        ("    timeout-minutes: 5\n", "", "no timeout-minutes"),
        ("    permissions:\n      contents: read # check out\n", "", "no permissions of its own"),
        ('"$TITLE"', "${{ github.sha }}", "an expression in a shell"),
        (" # v7.0.1", "", "not pinned"),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1", "not pinned"),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1", "3d3c42e", "not pinned"),
        ("actions/checkout@", "evil/checkout@", "evil/checkout: not pinned"),
        ("uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
         "uses: docker://alpine:3", "no pin"),
    ],
)  # fmt: skip
def test_each_rule_finds_what_breaks_it(before: str, after: str, said: str) -> None:
    assert problems(GOOD) == []
    assert before in GOOD
    [found] = problems(GOOD.replace(before, after))
    assert said in found


def test_who_asks_for_an_identity_is_whom_the_condition_lets_in() -> None:
    """The files, events and environments of the workflows are those of federation.py."""
    asking = {}
    for file in WORKFLOWS:
        document = yaml.safe_load(file.read_text())
        jobs = [j for j in document["jobs"].values() if "id-token" in (j.get("permissions") or {})]
        if jobs:
            asking[file.name] = (set(document.get("on", document.get(True))), jobs)
    assert sorted(asking) == sorted(permissions.WORKFLOWS)
    repository = permissions.Repository(owner="a", owner_id=1, name="b", repository_id=2)
    event = repository.conditions()["event"]
    services = pipelines.services(ROOT)
    environments = {env for name in services for env in pipelines.environments(ROOT, name)}
    for triggers, jobs in asking.values():
        assert all(f"'{trigger}'" in event for trigger in triggers)
        for job in jobs:
            named = (job.get("environment") or {}).get("name")
            assert named is None or named.startswith("${{ inputs.") or named in environments
