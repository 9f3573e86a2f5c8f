"""GitHub's workflows and Cloud Build's files do the same.

Cloud Build's files run step by step, GitHub's with act; both on a scratch Cloud Run that enforces
IAM.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.rehearse.cloudbuild import build as files
from tests.conftest import ROOT
from tests.discovery import problems_of
from tests.scripts.docker_help import needs_docker
from tests.scripts.test_init import follow_the_sample
from tests.scripts.test_rehearse import Fork, jobs

GIVEN = {"_ENVIRONMENT": "staging", "_SERVICE_ACCOUNT": "x@acme-ops.iam.gserviceaccount.com"}
STAGING = ["cloudbuild/deliver.yaml", "--input", "_ENVIRONMENT=staging"]
FILES = sorted((ROOT / "cloudbuild").glob("*.yaml"))
# The same time for both, so that both rehearsals make the same commits.
MOMENT = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Fork:
    fork = Fork(tmp_path_factory.mktemp("fork"))
    for file in FILES:
        fork.write(f"cloudbuild/{file.name}", file.read_text())
    follow_the_sample(fork.folder)
    fork.git("add", "--all")
    fork.git("commit", "--quiet", "--amend", "--no-edit")
    return fork


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_googles_schemas_hold(file: Path) -> None:
    """The published schema and the discovery document; the second finds a fault, too."""
    document = yaml.safe_load(file.read_text())
    assert problems_of("cloudbuild.v1", "Build", document) == []
    assert problems_of("cloudbuild.v1", "Build", {**document, "stepz": []}) != []
    tool = Path(sys.executable).parent / "check-jsonschema"
    command = [str(tool), "--builtin-schema", "vendor.cloudbuild", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_our_own_rules_hold(file: Path) -> None:
    """Its own account, images by digest, timeouts, logs, and no user input in a script."""
    document = yaml.safe_load(file.read_text())
    assert document["serviceAccount"].endswith("/$_SERVICE_ACCOUNT")
    assert "_SERVICE_ACCOUNT" not in document.get("substitutions", {})
    assert document["options"]["logging"] == "CLOUD_LOGGING_ONLY"
    times = [int(step["timeout"].removesuffix("s")) for step in document["steps"]]
    assert int(document["timeout"].removesuffix("s")) == sum(times)
    for step in document["steps"]:
        assert re.fullmatch(r"[a-z./-]+:[\w.-]+@sha256:[0-9a-f]{64}", step["name"])
        # A manual run may choose the folder of a step whose own is not absolute.
        assert step["dir"] == "/workspace"
        # Cloud Build pastes substitutions into args as text; it does not change `script`.
        assert "args" not in step
        assert "$_" not in step["script"]
        assert "${_" not in step["script"]
        checked = subprocess.run(
            [str(Path(sys.executable).parent / "shellcheck"), "-"],
            input=step["script"], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_of_the_checkout_runs_before_its_commit_is_checked(file: Path) -> None:
    first, *others = yaml.safe_load(file.read_text())["steps"]
    assert first["id"] == "main"
    assert first == {**yaml.safe_load(FILES[0].read_text())["steps"][0]}
    build = files.load(ROOT, f"cloudbuild/{file.name}", {}, GIVEN).build
    for index, step in enumerate(build.steps[1:], 1):
        waits, todo = set(), [index]
        while todo:
            todo += build.after(todo.pop()) - waits
            waits |= {*todo}
        assert 0 in waits or step.id == "docker", step.id
    assert "./ship" not in "".join(s["script"] for s in others if s["id"] == "docker")


class Checkout:
    """What Cloud Build checks out of a repository: one commit, without its history."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = folder / "remote"
        self.git("init", "--quiet", "--initial-branch=main", str(self.remote))
        for subject in ("first", "second"):
            self.commit(subject)
        self.git("checkout", "--quiet", "-b", "hostile", cwd=self.remote)
        self.commit("hostile")
        self.git("tag", "v1", cwd=self.remote)
        self.git("checkout", "--quiet", "main", cwd=self.remote)

    def git(self, *words: str, cwd: Path | None = None) -> None:
        me = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *me, *words], cwd=cwd or self.folder, check=True)

    def commit(self, subject: str) -> None:
        self.git("commit", "--quiet", "--allow-empty", "--message", subject, cwd=self.remote)

    def checked(self, what: str) -> subprocess.CompletedProcess[str]:
        """Check out a branch, tag or commit, and run the step that checks it."""
        workspace = self.folder / f"workspace-{uuid.uuid4().hex[:8]}"
        workspace.mkdir()
        self.git("init", "--quiet", cwd=workspace)
        self.git("remote", "add", "origin", self.remote.as_uri(), cwd=workspace)
        self.git("fetch", "--quiet", "--depth=1", "origin", what, cwd=workspace)
        self.git("checkout", "--quiet", "FETCH_HEAD", cwd=workspace)
        script = yaml.safe_load(FILES[0].read_text())["steps"][0]["script"]
        return subprocess.run(
            ["sh", "-eu", "-c", script], cwd=workspace, capture_output=True, text=True, check=False
        )


def test_only_commits_on_main_pass_the_check(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    older = subprocess.check_output(
        ["git", "rev-parse", "main~1"], cwd=checkout.remote, text=True
    ).strip()
    for what in ("main", older):
        assert checkout.checked(what).returncode == 0, what
    for what in ("hostile", "refs/tags/v1"):
        ended = checkout.checked(what)
        assert ended.returncode == 1, what
        assert "is not on main" in ended.stderr


def command(script: str, env: Mapping[str, str]) -> str:
    """Return the ship command of a script with its environment, without the commit and digest."""
    [found] = re.findall(r"\./ship (.*)", script)
    found = re.sub(r' --commit "\$COMMIT_SHA"', "", found)
    found = re.sub(r'"\$(DIGEST|SERVICES|BEFORE)S?"', r"\1", found)
    return str(found.replace('--env "$ENVIRONMENT"', f"--env {env.get('ENVIRONMENT')}"))


def of_github(name: str) -> list[str]:
    """Return the ship commands of a workflow and of the files that it calls, in order."""
    found = []
    for job in yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())[
        "jobs"
    ].values():
        inputs, steps = job.get("with", {}), job.get("steps", [])
        if "uses" in job:
            [called] = yaml.safe_load((ROOT / job["uses"]).read_text())["jobs"].values()
            steps = called["steps"]
        for step in steps:
            env = dict(step.get("env", {}))
            for key, value in inputs.items():
                env = {k: v.replace(f"${{{{ inputs.{key} }}}}", value) for k, v in env.items()}
            if "./ship" in step.get("run", ""):
                found.append(command(step["run"], env))
    # Cloud Build installs packages with its only identity, and signs nothing that Shipway verifies.
    return [one for one in found if not re.match("help |--version|attach ", one)]


def of_cloud_build(name: str) -> list[str]:
    """Return the ship commands of a build file, in order."""
    steps = yaml.safe_load((ROOT / f"cloudbuild/{name}.yaml").read_text())["steps"]
    env = {"ENVIRONMENT": "staging" if name == "deliver" else "production"}
    return [command(step["script"], env) for step in steps if "./ship" in step["script"]]


@pytest.mark.parametrize("name", ["promote", "rollback", "resume"])
def test_the_same_verbs(name: str) -> None:
    assert of_github(name) == of_cloud_build(name) != []


def test_the_same_verbs_in_the_same_order() -> None:
    """GitHub's jobs share what is listed and built; a trigger compares with what is live."""
    ours = [*of_cloud_build("deliver"), *of_cloud_build("deliver-after")]
    assert ours == [f"deliver --changed --env {env}" for env in ("staging", "production")]
    assert of_github("deliver") == [
        "plan --matrix --since BEFORE --env staging",
        "build SERVICES --env staging",
        "deliver SERVICES --env staging --digest DIGEST",
        "deliver SERVICES --env production --digest DIGEST",
    ]


def rehearse(fork: Fork, *arguments: str) -> tuple[dict[str, Any], str]:
    """Return what a rehearsal that succeeds found, and what it told."""
    done = fork.rehearse(*arguments, "--format", "json", **MOMENT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def declared(services: dict[str, Any]) -> dict[str, Any]:
    """Return the services without what no two have in common: numbers, times, ports, names."""
    made = {}
    for where, service in services.items():
        metadata = service["metadata"]
        annotations = metadata["annotations"]
        kept = {
            key: value
            for key, value in annotations.items()
            if key in ("shipway/candidate", "shipway/known-good")
            or not re.match(r"shipway/|serving\.|run\.googleapis\.com/(urls|operation-id)", key)
        }
        log = [(e["verb"], e.get("revision"), e.get("percent"))
               for e in json.loads(annotations["shipway/log"])]  # fmt: skip
        spec = json.loads(re.sub(r"127\.0\.0\.1:\d+", "HOST", json.dumps(service["spec"])))
        made[where] = {"labels": metadata["labels"], "annotations": kept, "log": log, "spec": spec}
    return made


def test_both_triggers_leave_the_same_services(forked: Fork) -> None:
    """The same commit, image digest, revision, traffic and history.

    One build, then the same digest in staging and production, with their own identities (I2).
    """
    done, told = rehearse(forked)
    assert done["jobs"] == {"build": "success", "staging": "success", "production": "success"}
    assert "stand-in for actions/attest-build-provenance: a test authority signed" in told
    said = told.split("production / Deploy, smoke-check, shift traffic")
    assert said[0].count("pushed 0 B") + said[0].count(" pushed (") == 1
    found = re.search(r"rollout  (shop-[0-9a-f]{7}) 100 %", said[0])
    assert found
    assert f"{found[1]} 10 %" in said[1]
    assert f"rollout  {found[1]} 100 %" in said[1]
    github = declared(done["services"])
    for name, env in (("deliver", "staging"), ("deliver-after", "production")):
        words = (f"cloudbuild/{name}.yaml", "--input", f"_ENVIRONMENT={env}")
        cloud, _ = rehearse(forked, *words)
        assert set(cloud["steps"].values()) == {"SUCCESS"}
        services = declared(cloud["services"])
        assert services.keys() == github.keys()
        where = f"{env}/us-central1/shop"
        assert services[where] == github[where]
        if env == "staging":
            assert services != github, "production has its own trigger, which was not run"


def test_a_branch_gets_no_identity(tmp_path: Path) -> None:
    """A manual run of a hostile branch, which replaces build file, check and command."""
    fork = Fork(tmp_path)
    for file in FILES:
        fork.write(f"cloudbuild/{file.name}", file.read_text())
    fork.commit("main", health="ok")
    deliver = yaml.safe_load((fork.folder / STAGING[0]).read_text())
    deliver["steps"][0]["script"] = "#!/bin/sh\n./ship"
    fork.write(STAGING[0], yaml.safe_dump(deliver))
    fork.write("ship", '#!/bin/sh\necho "got $GCE_METADATA_HOST"\n')
    fork.commit("a hostile change", health="ok")
    done = fork.rehearse(*STAGING, "--ref", "refs/heads/hostile")
    assert done.returncode == 1, done.stderr
    ends = {"main": "FAILURE", "deliver": "QUEUED"}
    assert {**jobs(done), **ends} == jobs(done)
    assert "is not on main. To run main: --branch=main" in done.stderr
    assert "got " not in done.stderr


@needs_docker
def test_deliver_with_docker(forked: Fork) -> None:
    """buildx builds and pushes with the build's own token, from its metadata server."""
    done = forked.rehearse(*STAGING, "--builder", "docker")
    assert done.returncode == 0, done.stderr
    assert set(jobs(done).values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cloudbuild/delivr.yaml"], "cloudbuild/delivr.yaml: no such file"),
        (["cloudbuild/promote.yaml"], "key '_ENVIRONMENT' in the template is not matched"),
        (["cloudbuild/promote.yaml", "--input", "_ENVIRONMENT=qa"], "production, staging"),
        ([*STAGING, "--input", "_X=1"], "'_X' in the substitution data is not"),
        ([*STAGING, "--input", "_SERVICE_ACCOUNT="], "names no service account"),
    ],
)
def test_bad_input(forked: Fork, words: list[str], said: str) -> None:
    done = forked.rehearse(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_nothing_is_left_in_the_repository(forked: Fork) -> None:
    assert forked.git("status", "--porcelain") == ""
