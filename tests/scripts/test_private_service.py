"""A private service, delivered by a deployer with only the required roles, under enforced IAM.

The credentials are a workflow's: a federated file that google-github-actions/auth would write.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
import requests

from scripts.config.formats import Check, Expect
from scripts.service import checks
from tests.conftest import LocalCloudRun
from tests.identity_help import (
    DEPLOYER,
    PROJECT,
    RUNTIME,
    Owner,
    account,
    project,
    repository,
    service,
)
from tests.scripts.conftest import Project

NAME = "svc"
MEMBER = f"serviceAccount:{DEPLOYER}"
STAGING = """
project: {project}
regions: [us-central1]
registry: us-central1-docker.pkg.dev/{project}/services
access: private
endpoint: {endpoint}
builder: cloud-build
platform: host
rollout:
  steps: [50, 100]
overlay:
  spec:
    template:
      spec:
        serviceAccountName: {account}
"""
# The roles for each part of `deliver`, and no others: (resource, role).
ROLES = [
    (project(), "roles/run.developer"),
    (project(), "roles/run.invoker"),
    (repository("services"), "roles/artifactregistry.writer"),
    (account(RUNTIME), "roles/iam.serviceAccountUser"),
    (project(), "roles/cloudbuild.builds.editor"),
    (project(), "roles/storage.objectCreator"),
    (project(), "roles/storage.objectViewer"),
]
# An access token, an ID token or an OIDC token: nothing else here looks like one.
TOKEN = re.compile(rb"ya29\.|eyJ[\w-]{10,}\.")


class Workflow:
    """A repository and the job that delivers it."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun) -> None:
        self.project = Project(folder / "repository", cloud_run, NAME)
        staging = STAGING.format(project=PROJECT, endpoint=cloud_run.url, account=RUNTIME)
        (self.project.pipeline / "staging.yaml").write_text(staging)
        self.project.commit()
        self.owner = Owner(cloud_run)
        self.owner.trust_github()
        self.owner.let_github_impersonate(DEPLOYER)
        for resource, role in ROLES:
            self.owner.grant(resource, role, MEMBER)
        self.file = self.owner.credentials(folder / "credentials.json", self.owner.job())

    def ship(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.project.ship(
            *arguments, "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=str(self.file), **env
        )

    def ship_in_sight(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it the same way, and return the command line that the system shows."""
        given = {"GOOGLE_APPLICATION_CREDENTIALS": str(self.file)}
        with self.project.start(*arguments, "--env", "staging", **given) as process:
            written = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, *written)

    def url(self) -> str:
        answer = self.owner.http.get(f"{self.owner.url}/v1/{service(NAME)}")
        return str(answer.json()["status"]["url"])


@pytest.fixture
def cloud_run(tmp_path: Path) -> Iterator[LocalCloudRun]:
    made = LocalCloudRun(tmp_path / "state", "--iam", "enforce")
    yield made
    made.stop()


@pytest.fixture
def workflow(tmp_path: Path, cloud_run: LocalCloudRun) -> Iterator[Workflow]:
    made = Workflow(tmp_path, cloud_run)
    yield made
    made.owner.http.close()


def test_the_least_privileged_deployer_delivers_a_private_service(workflow: Workflow) -> None:
    first = workflow.ship("deliver")
    assert first.returncode == 0, first.stderr
    assert "1 of 1 checks passed" in first.stderr
    workflow.project.commit()
    second = workflow.ship("deliver")
    assert second.returncode == 0, second.stderr
    back = workflow.ship("rollback")
    assert back.returncode == 0, back.stderr
    workflow.project.commit()
    for words in (["resume"], ["build"], ["deploy"], ["smoke"], ["promote"], ["history"]):
        ended = workflow.ship(*words)
        assert ended.returncode == 0, ended.stderr
    # Private it is.
    assert requests.get(workflow.url()).status_code == 403


@pytest.mark.parametrize(
    ("resource", "role", "permission", "code"),
    [
        (project(), "roles/run.developer", "'run.services.get' denied on resource", 1),
        (project(), "roles/run.invoker", "403", 1),
        (
            repository("services"),
            "roles/artifactregistry.writer",
            '"artifactregistry.repositories.downloadArtifacts" denied on resource "projects/'
            f'{PROJECT}/locations/-/repositories/services"',
            2,
        ),
        (
            account(RUNTIME),
            "roles/iam.serviceAccountUser",
            f"'iam.serviceaccounts.actAs' denied on service account {RUNTIME}",
            1,
        ),
        (
            account(DEPLOYER),
            "roles/iam.workloadIdentityUser",
            "'iam.serviceAccounts.getAccessToken' denied on resource",
            2,
        ),
    ],
)
def test_without_one_of_its_roles_it_is_refused_by_name(
    workflow: Workflow, resource: str, role: str, permission: str, code: int
) -> None:
    assert workflow.ship("deliver").returncode == 0
    workflow.project.commit()
    workflow.owner.revoke(resource, role)
    ended = workflow.ship("deliver")
    assert ended.returncode == code, ended.stderr
    assert permission in ended.stderr, ended.stderr


def test_opening_a_service_needs_more_permissions(workflow: Workflow) -> None:
    """Permission to deploy does not include opening a service to everyone."""
    assert workflow.ship("deliver").returncode == 0
    file = workflow.project.pipeline / "staging.yaml"
    file.write_text(file.read_text().replace("access: private", "access: public"))
    workflow.project.commit()
    ended = workflow.ship("deliver")
    assert ended.returncode == 1
    assert "Permission 'run.services.setIamPolicy' denied on resource" in ended.stderr
    workflow.owner.grant(project(), "roles/run.admin", MEMBER)
    ended = workflow.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    assert requests.get(workflow.url()).status_code == 200


def test_credentials_that_cannot_have_an_id_token_are_reported(workflow: Workflow) -> None:
    """Federated, but as no account: Cloud Run's API takes that, a private service does not."""
    owner = workflow.owner
    subject = f"principalSet://iam.googleapis.com/{owner.pool}/*"
    for resource, role in ROLES:
        owner.grant(resource, role, subject)
    owner.credentials(workflow.file, owner.job(), None)
    ended = workflow.ship("deliver")
    assert ended.returncode == 1, "the image was pushed and the revision deployed"
    assert "only a service account can have an ID token" in ended.stderr


@pytest.mark.parametrize("verb", ["build", "deliver", "rollback"])
def test_a_github_variable_that_is_empty(workflow: Workflow, verb: str) -> None:
    """The action makes credentials then, too, of an identity without a role."""
    workflow.owner.credentials(workflow.file, workflow.owner.job(), None)
    ended = workflow.ship(verb, GITHUB_ACTIONS="true")
    assert ended.returncode == 2
    assert "this job's credentials name no service account" in ended.stderr
    assert "DEPLOYER in the job's environment" in ended.stderr


def test_a_token_that_a_service_echoes_is_in_no_outcome() -> None:
    """I9: the evidence is a service's response, which may contain the request's headers."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"asked with {self.headers['X-Serverless-Authorization']}".encode())

        def log_message(self, *arguments: object) -> None:
            pass

    token = jwt.encode({"aud": "x" * 200}, "k" * 32, algorithm="HS256")
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        check = Check(path="/", expect=Expect(text="something else"))
        [outcome] = checks.run(f"http://127.0.0.1:{server.server_port}", [check], "", token)
        server.shutdown()
        thread.join()
    assert "(token)" in "\n".join(outcome.evidence)
    assert not TOKEN.search("\n".join([outcome.problem, *outcome.evidence]).encode())
    assert token[:30] not in "\n".join(outcome.evidence)


def test_no_verb_shows_a_token(workflow: Workflow, tmp_path: Path) -> None:
    """I9: neither after success nor failure, nor with --debug, nor on a command line."""
    with command_lines() as seen:
        outputs = [workflow.ship_in_sight("deliver")]
        outputs += [workflow.ship(*words) for words in (
            ["status"], ["history"], ["smoke", "--debug"], ["hold", "--reason", "x"],
            ["rollback", "--debug"], ["resume"],
        )]  # fmt: skip
        workflow.project.commit(health="broken")
        outputs += [workflow.ship(*words) for words in (
            ["build", "--debug"], ["deploy", "--debug"], ["smoke"], ["rollout", "--debug"],
            ["deliver", "--debug"],
        )]  # fmt: skip
        workflow.owner.revoke(project(), "roles/run.invoker")
        outputs.append(workflow.ship("smoke", "--debug"))
        workflow.owner.revoke(account(DEPLOYER), "roles/iam.workloadIdentityUser")
        outputs += [workflow.ship(verb, "--debug") for verb in ("status", "promote", "deliver")]
    assert outputs[0].returncode == 0, outputs[0].stderr
    assert [output.returncode for output in outputs[-4:]] == [1, 2, 2, 2]
    for output in outputs:
        for text in (output.stdout, output.stderr):
            assert not TOKEN.search(text.encode()), output.args
    assert any(b"deliver" in line for line in seen), "the commands were watched"
    assert not [line for line in seen if TOKEN.search(line)]
    for folder in (tmp_path / "repository", tmp_path / "state"):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert len(files) > 10
        assert not [file for file in files if TOKEN.search(file.read_bytes())]


class command_lines:
    """Collect the command lines of every process that starts below this one."""

    def __enter__(self) -> set[bytes]:
        self.seen: set[bytes] = set()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(0.05):
            for process in _below(os.getpid()):
                with suppress(OSError):
                    if line := Path(f"/proc/{process}/cmdline").read_bytes():
                        self.seen.add(line)


def _below(process: int) -> Iterator[int]:
    """Yield the descendants of a process."""
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _below(child)
