"""Workflows, shell scripts and Dockerfiles: linters find nothing, and our own rules hold.

Each check is also run on a file with the fault that it should find. In a fork, these are checks of
the workflows that can get an identity; they may use other actions, pinned by commit. Its other
workflows, its scripts and its Dockerfiles are not checked.
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

from scripts.command import verbs
from scripts.config import pipelines, workflows
from scripts.config.image_reference import ImageReference
from scripts.setup import identity_provider
from scripts.template import owners, record
from tests.conftest import ROOT

TOOLS = Path(sys.executable).parent
IN_FORK = (ROOT / record.FILE).exists()


def checked(folder: Path, *, in_fork: bool) -> list[Path]:
    """Return the workflows to check: all, or in a fork those that can get an identity."""
    files = sorted(folder.glob("*.y*ml"))
    may_ask = re.compile(r"\b(id-token|write-all)\b")
    return [file for file in files if not in_fork or may_ask.search(file.read_text())]


WORKFLOWS = checked(ROOT / ".github" / "workflows", in_fork=IN_FORK)
needs_deliver = pytest.mark.skipif(
    IN_FORK and not (ROOT / ".github/workflows/deliver.yml").exists(),
    reason="left out: this fork does not deliver with GitHub Actions",
)
needs_workflows = pytest.mark.skipif(
    not WORKFLOWS, reason="left out: no workflow of this fork can get an identity"
)
in_the_template = pytest.mark.skipif(IN_FORK, reason="left out: a fork has workflows of its own")

# The allowed actions, each at the commit that its repository's release tag points to.
PINS = {
    "actions/checkout": ("v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1"),
    "google-github-actions/auth": ("v3.0.0", "7c6bc770dae815cd3e89ee6cdf493a5fab2cc093"),
    "docker/setup-buildx-action": ("v4.3.0", "37fe631027851001ddb9b187196cc803df7f5f0e"),
    "actions/dependency-review-action": ("v5.0.0", "a1d282b36b6f3519aa1f3fc636f609c47dddb294"),
    "github/codeql-action/init": ("v4.37.7", "ff2f1c621b7f889edc0d3c761ac2e6a3f8cdb0dd"),
    "github/codeql-action/analyze": ("v4.37.7", "ff2f1c621b7f889edc0d3c761ac2e6a3f8cdb0dd"),
    "github/codeql-action/upload-sarif": ("v4.37.7", "ff2f1c621b7f889edc0d3c761ac2e6a3f8cdb0dd"),
    "ossf/scorecard-action": ("v2.4.4", "2d1146689b8cda280b9bc96326124645441f03bc"),
    "actions/attest-build-provenance": ("v4.1.0", "a2bbfa25375fe432b6a289bc6b6cd05ecd0c4c32"),
}

AUTH = "google-github-actions/auth"

pytestmark = pytest.mark.skipif(
    not (TOOLS / "zizmor").exists(),
    reason="the tools of requirements/dev.txt are not installed",
)


def tool(name: str, *arguments: object) -> tuple[int, str]:
    """Return a tool's exit code and output. Tools find each other: actionlint runs shellcheck."""
    ended = subprocess.run(
        [str(TOOLS / name), *map(str, arguments)],
        env={**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def kept() -> list[Path]:
    """Return the files that git lists, and new ones; in a fork not those of the fork."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rules = owners.current()
    names = [n for n in listed.split("\0") if not IN_FORK or rules.of(n) != "fork"]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


USES = re.compile(r"\s*(?:- )?uses:\s*(\S+?)@(\S+)(.*)")
OWN = {f"uses: ./.github/workflows/{name}" for name in (workflows.BUILD, workflows.DELIVER_TO)}


def shell_scripts() -> list[Path]:
    def is_shell(file: Path) -> bool:
        with file.open("rb") as opened:
            first = opened.readline(200)
        return file.suffix == ".sh" or bool(re.match(rb"#!.*\b(ba|da)?sh\b", first))

    return [file for file in kept() if is_shell(file)]


def dockerfiles() -> list[Path]:
    """Return the Dockerfiles to check, without those of other authors that the tests deliver."""
    found = [f for f in kept() if f.name == "Dockerfile" or f.suffix == ".Dockerfile"]
    return [f for f in found if ROOT / "tests/services" not in f.parents]


# The linters


def zizmor(*files: Path) -> tuple[int, str]:
    return tool("zizmor", "--persona=pedantic", "--offline", "--no-progress", *files)


def schema(name: str, *files: Path) -> tuple[int, str]:
    return tool("check-jsonschema", "--builtin-schema", f"vendor.{name}", *files)


@needs_workflows
def test_zizmor_finds_nothing() -> None:
    code, said = zizmor(*(WORKFLOWS if IN_FORK else [ROOT / ".github"]))
    assert code == 0, said
    assert "No findings" in said


@needs_workflows
def test_actionlint_finds_nothing() -> None:
    code, said = tool("actionlint", *WORKFLOWS)
    assert (code, said) == (0, "")


@needs_workflows
def test_githubs_schemas_hold() -> None:
    if not IN_FORK:
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
    for name in () if IN_FORK else pipelines.services(ROOT):
        assert pipelines.load(ROOT, name, "local").source / "Dockerfile" in files
    if IN_FORK and not files:
        pytest.skip("left out: every Dockerfile is the fork's own")
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


def test_each_tool_finds_its_kind_of_fault(tmp_path: Path) -> None:
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


# Our own rules


def triggers_of(document: dict[Any, Any]) -> set[str]:
    """Return the events of a workflow; in YAML 1.1 its key `on` is a boolean."""
    return set(document.get("on", document.get(True)))


def problems(text: str, *, in_fork: bool = False) -> list[str]:
    """Return each rule that a workflow breaks.

    Args:
        text: the workflow.
        in_fork: whether it may use any action that is pinned by commit, and actions of its own.
    """
    found = []
    document = yaml.safe_load(text)
    if "pull_request_target" in triggers_of(document):
        found.append(
            "pull_request_target: a stranger's pull request would run with our permissions"
        )
    if document.get("permissions") != {}:
        found.append("permissions are not {} at the top")
    for name, job in document["jobs"].items():
        if "timeout-minutes" not in job and "uses" not in job:  # the called job has its own
            found.append(f"{name}: no timeout-minutes")
        if "permissions" not in job:
            found.append(f"{name}: no permissions of its own")
        for step in job.get("steps", []):
            if "${{" in str(step.get("run", "")):
                found.append(f"{name}: an expression in a shell: {step['run']}")
        named = job.get("environment")
        url = str(named.get("url", "")) if isinstance(named, dict) else ""
        step = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.deployment_url \}\}", url)
        runs = [one for one in job.get("steps", []) if step and one.get("id") == step[1]]
        shows = any("./ship" in str(one.get("run")) for one in runs)
        if "environment" in job and not shows and not in_fork:
            found.append(f"{name}: its deployment has no URL from a step that runs ./ship")
    for line in text.splitlines():
        if match := USES.match(line):
            action, commit, comment = match.groups()
            pin = (comment.strip(" #"), commit)
            pinned = re.fullmatch(r"[0-9a-f]{40}", commit) if in_fork else PINS.get(action) == pin
            if not pinned:
                found.append(f"{action}: not pinned as PINS says: {line.strip()}")
        elif "uses:" in line and not (line.strip() in OWN or (in_fork and "uses: ./" in line)):
            found.append(f"no pin: {line.strip()}")
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: str(file.name))
def test_our_own_rules_hold(workflow: Path) -> None:
    assert problems(workflow.read_text(), in_fork=IN_FORK) == []


@in_the_template
def test_each_allowed_action_is_used() -> None:
    lines = [line for file in WORKFLOWS for line in file.read_text().splitlines()]
    assert {match[1] for match in map(USES.match, lines) if match} == {*PINS}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("  push:\n", "  pull_request_target:\n", "pull_request_target"),
        ("permissions: {}\n", "", "not {} at the top"),
        ("permissions: {}\n", "permissions: read-all\n", "not {} at the top"),
        ("    timeout-minutes: 5\n", "", "no timeout-minutes"),
        ("    permissions:\n      contents: read # check out\n", "", "no permissions of its own"),
        ("    timeout-minutes: 5\n", "    timeout-minutes: 5\n    environment: {name: staging}\n",
         "has no URL"),
        ('"$TITLE"', "${{ github.sha }}", "an expression in a shell"),
        (" # v7.0.1", "", "not pinned"),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1", "not pinned"),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1", "3d3c42e", "not pinned"),
        ("actions/checkout@", "evil/checkout@", "evil/checkout: not pinned"),
        ("uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
         "uses: docker://alpine:3", "no pin"),
        ("uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
         "uses: ./.github/actions/ours", "no pin"),
    ],
)  # fmt: skip
def test_each_rule_finds_what_breaks_it(before: str, after: str, said: str) -> None:
    assert problems(GOOD) == []
    assert before in GOOD
    [found] = problems(GOOD.replace(before, after))
    assert said in found


def test_a_fork_decides_about_workflows_without_an_identity(tmp_path: Path) -> None:
    asking = GOOD.replace("contents: read", "id-token: write")
    for name, text in {
        "own.yml": GOOD,
        "asking.yaml": asking,
        "all.yml": GOOD.replace("permissions: {}", "permissions: write-all"),
    }.items():
        (tmp_path / name).write_text(text)
    names = ["all.yml", "asking.yaml"]
    assert [file.name for file in checked(tmp_path, in_fork=True)] == names
    assert len(checked(tmp_path, in_fork=False)) == 3


def test_a_fork_chooses_its_actions_and_pins_them() -> None:
    own = GOOD.replace("actions/checkout@", "acme/own@").replace(" # v7.0.1", "")
    assert problems(own, in_fork=True) == []
    assert problems(re.sub(r"acme/own@\w+", "./.github/actions/own", own), in_fork=True) == []
    for unpinned in ("acme/own@v7", "docker://alpine:3"):
        [found] = problems(re.sub(r"acme/own@\w+", unpinned, own), in_fork=True)
        assert "pin" in found


def test_the_condition_names_the_files_that_ask_for_an_identity() -> None:
    """The files, events and environments of the workflows are those of permissions.py."""
    documents = {file.name: yaml.safe_load(file.read_text()) for file in WORKFLOWS}
    asking = {name for name, document in documents.items() if jobs_that_ask(document)}
    called = {name for name in asking if triggers_of(documents[name]) == {"workflow_call"}}
    with_steps = {
        name
        for name in asking
        if any("steps" in job for job in jobs_that_ask(documents[name]).values())
    }
    if IN_FORK:
        assert asking - called <= {*identity_provider.WORKFLOWS}
        assert with_steps <= {*identity_provider.JOB_WORKFLOWS}
    else:
        assert asking - called == {*identity_provider.WORKFLOWS}
        assert with_steps == {*identity_provider.JOB_WORKFLOWS}
    repository = identity_provider.Repository(owner="a", owner_id=1, name="b", repository_id=2)
    event = repository.conditions()["event"]
    for name in asking - called:
        assert all(f"'{trigger}'" in event for trigger in triggers_of(documents[name]))


def test_only_the_build_asks_for_an_identity_without_an_environment() -> None:
    """GitHub asks for the approval of an environment: a job that deploys must have one."""
    without = []
    for file in WORKFLOWS:
        for id_, job in jobs_that_ask(yaml.safe_load(file.read_text())).items():
            named = (job.get("environment") or {}).get("name", "")
            chosen = ("${{ inputs.environment }}", "${{ matrix.environment }}")
            if "steps" in job and named not in chosen:
                without.append((file.name, id_))
    assert without == [(workflows.BUILD, "build")] or (IN_FORK and not without)


def installs_too_late(text: str) -> list[str]:
    """Return the jobs that take an identity and install Shipway's packages afterwards."""
    found = []
    for name, job in yaml.safe_load(text)["jobs"].items():
        steps = job.get("steps", [])
        takes = [i for i, s in enumerate(steps) if AUTH in s.get("uses", "")]
        installed: set[str] = set()
        for i, step in enumerate(steps):
            if used := re.search(r"\./ship ([^\n]*)", step.get("run", "")):
                wanted = verbs.lock_files(used[1].split())
                if takes and i > takes[0] and not installed.intersection(wanted):
                    found.append(name)
                    break
                installed.add(wanted[0])
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: str(file.name))
def test_packages_are_installed_before_the_job_has_an_identity(workflow: Path) -> None:
    text = workflow.read_text()
    assert installs_too_late(text) == []
    if AUTH in text:  # and the rule finds a job without that step
        late = re.sub(r" +- name: Install Shipway's.*\n.*run: ./ship .*\n", "", text)
        assert late != text
        assert installs_too_late(late) != [] or IN_FORK


@needs_deliver
def test_only_what_was_built_is_signed_and_nothing_else_runs_in_the_job_that_builds() -> None:
    """A job of its own, in a file of its own, whose inputs choose no code and no action."""
    document = yaml.safe_load((ROOT / ".github/workflows" / workflows.BUILD).read_text())
    assert triggers_of(document) == {"workflow_call"}
    assert [*document[True]["workflow_call"]["inputs"]] == ["environment"]
    [job] = document["jobs"].values()
    steps = {step["name"]: step for step in job["steps"]}
    assert "steps.build.outputs.subjects" in steps["Sign the provenance"]["if"]
    signed = steps["Sign the provenance"]["with"]["subject-checksums"]
    assert signed == f"{steps['Build and push']['env']['SHIPWAY_OUTPUTS']}/subjects"
    for name in ("Set up BuildKit", "Become the identity that pushes images", "Build and push"):
        assert steps[name]["if"] == "${{ steps.plan.outputs.services }}", "no identity for nothing"
    used = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
    if not IN_FORK:
        assert used == ["actions/checkout", "docker/setup-buildx-action", AUTH,
                        "actions/attest-build-provenance"]  # fmt: skip
    caches = [text for text in map(str, job["steps"]) if "actions/cache" in text or "gha" in text]
    assert caches == [], "other workflows can write GitHub's cache"
    image = steps["Set up BuildKit"]["with"]["driver-opts"].removeprefix("image=")
    assert ImageReference.parse(image).is_by_digest


@needs_deliver
def test_the_environments_that_deliver_yml_names_exist() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/deliver.yml").read_text())["jobs"]
    services = pipelines.services(ROOT)
    environments = {env for name in services for env in pipelines.environments(ROOT, name)}
    assert {job["with"]["environment"] for job in jobs.values() if "uses" in job} <= environments


@needs_deliver
def test_watch_yml_names_the_environments_that_are_watched() -> None:
    """Or the last one, if none is: a job needs one."""
    document = yaml.safe_load((ROOT / ".github/workflows" / workflows.WATCH).read_text())
    [job] = document["jobs"].values()
    jobs = yaml.safe_load((ROOT / ".github/workflows/deliver.yml").read_text())["jobs"]
    delivered = dict.fromkeys(job["with"]["environment"] for job in jobs.values())
    loaded = [
        pipelines.load(ROOT, name, env)
        for env in delivered
        for name in pipelines.services(ROOT)
        if env in pipelines.environments(ROOT, name)
    ]
    watched = [*dict.fromkeys(p.env for p in loaded if p.environment.rollout.watch)]
    assert job["strategy"]["matrix"] == {"environment": watched or [*delivered][-1:]}


@needs_deliver
def test_an_environment_runs_one_delivery_at_a_time_and_none_is_cancelled() -> None:
    document = yaml.safe_load((ROOT / ".github/workflows/deliver-to.yml").read_text())
    [job] = document["jobs"].values()
    assert job["concurrency"] == {"group": "deliver-${{ inputs.environment }}", "queue": "max"}


def jobs_that_ask(document: dict[Any, Any]) -> dict[str, Any]:
    """Return the jobs of a workflow that may ask for an OIDC token."""
    return {
        id_: job
        for id_, job in document["jobs"].items()
        if "id-token" in (job.get("permissions") or {})
    }
