"""The real workflows, run with act against a scratch local Cloud Run that enforces IAM.

Stand-ins in tests/actions/ replace third-party actions, so that the tests need no internet. The
real actions are not tested here.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.errors import UsageError
from scripts.rehearse import workflow
from tests import warm
from tests.conftest import ROOT
from tests.scripts.conftest import DOCKERFILE, LOCAL, MANIFEST, SERVER, SMOKE
from tests.scripts.docker_help import needs_docker
from tests.scripts.test_init import follow_the_sample

ENVIRONMENT = """
project: acme-{env}
regions: [us-central1]
registry: us-central1-docker.pkg.dev/acme-ops/services
access: private
{after}
rollout:
  steps: [10, 100]
  bake: 5m
overlay:
  spec:
    template:
      spec:
        serviceAccountName: shop-runtime@acme-{env}.iam.gserviceaccount.com
"""
# A fork has its own checks and tests.
NOXFILE = """
import nox

@nox.session
def lint(session):
    session.run("python", "-m", "compileall", "-q", "shop")

@nox.session
def types(session):
    session.log("none")
"""
SHOWN = "Show the URL of the deployment"  # a step of the copies
TEST = "def test_it():\n    assert True\n"


class Fork:
    """A fork with its own small service, and the real workflows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scripts", "emulator", "requirements", ".github"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
        follow_the_sample(folder)
        for name in ("ship", ".gitignore", "pyproject.toml"):
            shutil.copy2(ROOT / name, folder / name)
        self.write("pipelines/shop/service.yaml", MANIFEST.format(name="shop"))
        self.write("pipelines/shop/smoke.yaml", SMOKE)
        self.write("pipelines/shop/local.yaml", LOCAL.format(endpoint="http://127.0.0.1:8787"))
        for env, after in (("staging", ""), ("production", "after: staging")):
            self.write(f"pipelines/shop/{env}.yaml", ENVIRONMENT.format(env=env, after=after))
        self.write("shop/server.py", SERVER)
        self.write("shop/Dockerfile", DOCKERFILE)
        self.write("noxfile.py", NOXFILE)
        self.write("tests/test_it.py", TEST)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", "git@github.com:acme/shop.git")
        self.commit("the first", health="ok")
        self.commit("the second", health="ok", note="second")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(self, *arguments: str) -> str:
        settings = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        return subprocess.run(
            ["git", *settings, *arguments],
            cwd=self.folder, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    def commit(self, subject: str, *, health: str, note: str = "first") -> None:
        settings = {"note": note, "start": "listen", "health": health, "code": 200}
        self.write("shop/settings.json", json.dumps(settings))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)

    def rehearse(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        words = ["rehearse", *arguments, "--actions", str(ROOT / "tests" / "actions")]
        if "--builder" not in words:
            words += ["--builder", "cloud-build"]
        given = {**os.environ, "SHIPWAY_ACTOR": "someone", **env}
        return warm.ship(*words, cwd=self.folder, env=given, timeout=240)


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Fork:
    """Return one fork for all tests that do not change it."""
    return Fork(tmp_path_factory.mktemp("fork"))


def jobs(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return job -> result from the table."""
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    return {row[0]: row[1] for row in rows if len(row) > 1 and row[0] != "rehearsed"}


def test_a_commit_may_fix_one_that_cannot_be_delivered(tmp_path: Path) -> None:
    fork = Fork(tmp_path)
    fork.commit("break it", health="broken")
    fork.commit("fix it", health="ok")
    done = fork.rehearse("deliver")
    assert "the previous commit cannot be delivered, and is left out (ship: " in done.stderr
    assert done.returncode == 0, done.stderr


def test_another_branch_is_refused(forked: Fork) -> None:
    """The provider's condition: a workflow of a branch gets no identity."""
    inputs = ("--input", "environment=production")
    done = forked.rehearse("rollback", *inputs, "--ref", "refs/heads/mine")
    assert done.returncode == 1
    assert jobs(done) == {"rollback": "failure"}
    assert "rollback  failure  Roll back" in done.stdout, "the step that failed"
    assert "rejected by the attribute condition" in done.stderr
    assert "docs/security.md" in done.stderr
    assert "on hold" not in done.stderr


@needs_docker
def test_deliver_with_docker(forked: Fork) -> None:
    """buildx builds and pushes with the pusher's token; instances are containers."""
    done = forked.rehearse("deliver", "--builder", "docker")
    assert done.returncode == 0, done.stderr
    assert set(jobs(done).values()) == {"success"}


def test_ci(forked: Fork) -> None:
    """Checks, tests, and the trial delivery, on a machine without Docker, too."""
    done = forked.rehearse("ci")
    assert done.returncode == 0, done.stderr
    assert jobs(done) == {"check": "success", "trial": "success"}
    assert "1 passed" in done.stderr


def test_a_commit_that_adds_an_environment(tmp_path: Path) -> None:
    """The previous commit lacks the environment, so that the commit itself is delivered first."""
    fork = Fork(tmp_path)
    fork.write("pipelines/shop/qa.yaml", ENVIRONMENT.format(env="qa", after="after: staging"))
    fork.commit("one more", health="ok")
    done = fork.rehearse("rollback", "--input", "environment=qa")
    assert done.returncode == 0, done.stderr


def test_nothing_is_left_in_the_repository(forked: Fork) -> None:
    assert forked.git("status", "--porcelain") == ""
    assert forked.git("branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("at", ["before", "job"])
def test_interrupted_it_leaves_nothing(tmp_path: Path, at: str) -> None:
    """Interrupted while it waits for a container: before the workflow, and in one of its steps."""
    fork = Fork(tmp_path / "fork")
    (scratch := tmp_path / "tmp").mkdir()
    called = socket.create_server(("127.0.0.1", 0))
    call = f"socket.create_connection({called.getsockname()})"
    fork.write("shop/server.py", f"import signal, socket\n{call}\nsignal.pause()\n")
    fork.commit("it never listens", health="ok")
    if at == "before":
        fork.commit("another that never listens", health="ok", note="another")
    words = ["rehearse", "--builder", "cloud-build", "--actions", str(ROOT / "tests" / "actions")]
    process = subprocess.Popen(
        [f"{warm.environment()}/bin/python", str(ROOT / "scripts"), *words],
        cwd=fork.folder, env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with called:
        began = select.select([called], [], [], 60)[0]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert began, f"no container was started: {errors}"
    assert process.returncode == 130, errors
    assert list(scratch.iterdir()) == []


def test_a_missing_action(forked: Fork, tmp_path: Path) -> None:
    words = ["rehearse", "--actions", str(tmp_path)]
    done = warm.ship(*words, cwd=forked.folder, env=os.environ, timeout=120)
    assert done.returncode == 2
    assert f"--actions {tmp_path}: actions/attest-build-provenance is not in" in done.stderr
    assert "git clone https://github.com/" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rolback"], "did you mean 'rollback'?"),
        (["rollback"], "--input environment="),
        (["rollback", "--input", "environment"], "write NAME=VALUE"),
        (["rollback", "--input", "env=staging"], "did you mean 'environment'?"),
        (["rollback", "--input", "environment=qa"], "production, staging"),
        (["deliver", "--ref", "main"], "refs/heads/main"),
        (["deliver-to"], "deliver-to.yml runs only when another workflow calls it"),
    ],
)
def test_bad_input(forked: Fork, words: list[str], said: str) -> None:
    done = forked.rehearse(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_the_copy_differs_in_what_act_lacks_only() -> None:
    real = workflow.load(ROOT, "deliver", {})
    copies = copied(real, {}, {})
    assert [*copies] == ["deliver.yml"]
    made = copies["deliver.yml"]["jobs"]
    assert {**copies["deliver.yml"], "jobs": real.data["jobs"]} == {**real.data, "name": "Deliver"}
    assert [*made] == [*real.data["jobs"]]
    for id_, copy in made.items():
        [job] = real.called[id_].data["jobs"].values()
        kept = job.keys() - {"concurrency", "name", "environment", "steps", "outputs"}
        assert {key: copy[key] for key in kept} == {key: job[key] for key in kept}
        ours = [step["name"] for step in job["steps"]]
        deployment = [SHOWN] if "environment" in job else []
        assert [step["name"] for step in copy["steps"]] == [*ours, *deployment]
        for key in ("needs", "if"):
            assert copy.get(key) == real.data["jobs"][id_].get(key)
    *_, last, shown = made["production"]["steps"]
    assert shown["env"] == {"URL": "${{ steps.deliver.outputs.deployment_url }}"}
    assert last["run"] == real.called["production"].data["jobs"]["deliver"]["steps"][-1]["run"]
    assert last["env"] == {
        "ENVIRONMENT": "${{ 'production' }}",
        "SERVICES": "${{ (needs.staging.outputs.delivered) }}",
        "DIGESTS": "${{ (needs.build.outputs.digests) }}",
    }
    assert made["staging"]["outputs"] == {"delivered": "${{ steps.deliver.outputs.delivered }}"}


def test_a_copy_has_its_environments_variables_and_access_to_the_issuer() -> None:
    real = workflow.load(ROOT, "deliver", {})
    copies = copied(real, {"DEPLOYER": "it's {}"}, {"A": "b"})
    job = copies["deliver.yml"]["jobs"]["production"]
    assert job["steps"][2]["with"]["service_account"] == "${{ 'it''s production' }}"
    assert job["env"] == {"A": "b"}


def test_a_called_job_has_no_right_that_its_caller_lacks() -> None:
    real = workflow.load(ROOT, "deliver", {})
    assert {job.id: job.tokens for job in real.jobs} == {
        "build": True, "staging": True, "production": True,
    }  # fmt: skip
    real.data["jobs"]["staging"]["permissions"] = {"contents": "read"}
    real.called["production"].data["jobs"]["deliver"]["permissions"] = {"contents": "read"}
    assert {job.id: job.tokens for job in real.jobs} == {
        "build": True, "staging": False, "production": False,
    }  # fmt: skip


def copied(real: workflow.Workflow, variables: dict[str, str], env: dict[str, str]) -> Any:
    made = real.copies(
        "./../copies",
        lambda job: {k: v.format(job.environment) for k, v in variables.items()},
        lambda job: env,
        "docker",
    )
    return {name: yaml.load(text, Loader=workflow._Loader) for name, text in made.items()}


def test_a_file_that_is_not_a_workflow(tmp_path: Path) -> None:
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".github/workflows/a.yml").write_text("- 1\n")
    with pytest.raises(UsageError, match=r"a\.yml: not a workflow"):
        workflow.load(tmp_path, "a", {})
