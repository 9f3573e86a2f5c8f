"""A team whose staging is set up and has served a commit: each test breaks one thing in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import LocalCloudRun
from tests.scripts.bootstrap_help import ADMIN, NAME, OPS, STAGING, Team

IDS = {
    "GITHUB_REPOSITORY": "acme/app",
    "GITHUB_REPOSITORY_ID": "4711",
    "GITHUB_REPOSITORY_OWNER_ID": "42",
}
BOOTSTRAP = "./ship bootstrap --env staging"
SERVICES = f"projects/{STAGING}/locations/us-central1/services"
REPOSITORY = f"projects/{OPS}/locations/us-central1/repositories/services"
DEPLOYER = f"projects/{STAGING}/roles/shipwayDeployer"
Finding = dict[str, str]


BARE = "team-bare"


class Patient(Team):
    """A team whose staging is set up. Its environment `bare` is in a project that never is."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, access: str = "private") -> None:
        super().__init__(folder, cloud_run, access)
        self.write("bare", BARE, cloud_run, access)
        cloud_run.local("POST", "projects", {"projectId": BARE, "owner": f"serviceAccount:{ADMIN}"})
        self._local = cloud_run.local
        self.variables = self.set_up("staging")["variables"]
        self.http = self.owner_of_projects()
        self.url = cloud_run.url

    def deliver(self) -> None:
        """Build and deliver the newest commit to staging."""
        self.done("staging", "build", build=True)
        self.done("staging", "deliver")

    def speak_as(self, which: str, **claims: Any) -> str:
        """Return a credentials file of the job that acts as the PUSHER or the DEPLOYER."""
        self.owner.provider = self.variables["WORKLOAD_IDENTITY_PROVIDER"]
        if which == "DEPLOYER":
            claims.setdefault("environment", "staging")
        job = self.owner.job(**claims)
        return str(self.owner.credentials(self.folder / "job.json", job, self.variables[which]))

    def doctor(
        self,
        *,
        env: str = "staging",
        credentials: str | None = None,
        words: tuple[str, ...] = (),
        **more: str,
    ) -> tuple[int, list[Finding]]:
        """Run the doctor; return its exit code and its findings."""
        ended = self.project.ship(
            "doctor", "--env", env, "--format", "json", *words,
            **{"GOOGLE_APPLICATION_CREDENTIALS": credentials or str(self.admin), **IDS, **more},
        )  # fmt: skip
        assert "Traceback" not in ended.stderr, ended.stderr
        document = json.loads(ended.stdout)
        assert document["ok"] == (ended.returncode == 0)
        return ended.returncode, document["findings"]

    def wrong(self, **how: Any) -> list[Finding]:
        """Return the findings that are wrong; each must have a fix."""
        code, findings = self.doctor(**how)
        found = [one for one in findings if one["state"] == "wrong"]
        assert code == (1 if found else 0)
        assert all(one["fix"] for one in found), found
        return found

    def one_wrong(self, check: str, **how: Any) -> Finding:
        """Return the only finding that is wrong."""
        [found] = self.wrong(**how)
        assert found["check"] == check, found
        return found

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request as the owner of the projects."""
        answer = self.http.request(method, f"{self.url}/v1/{path}", json=body, timeout=20)
        assert answer.ok, answer.text
        return answer.json()

    @contextmanager
    def without_role(self, resource: str, role: str, method: str = "GET") -> Iterator[None]:
        """Remove a role from every member that has it on a resource, for the block."""
        before = self.api(method, f"{resource}:getIamPolicy")
        kept = [one for one in before["bindings"] if one["role"] != role]
        assert kept != before["bindings"], before
        self.api("POST", f"{resource}:setIamPolicy", {"policy": {"bindings": kept}})
        try:
            yield
        finally:
            policy = {"policy": {"bindings": before["bindings"]}}
            self.api("POST", f"{resource}:setIamPolicy", policy)

    @contextmanager
    def fault(self, name: str, **settings: Any) -> Iterator[None]:
        """Start a fault of the local Cloud Run, for the block."""
        self._local("POST", "faults", {"name": name, **settings})
        try:
            yield
        finally:
            self._local("DELETE", f"faults/{name}")

    def bootstrap_fixes_it(self) -> None:
        """Run bootstrap, as the fix says; then nothing is wrong."""
        self.set_up("staging")
        assert self.wrong() == []

    @contextmanager
    def file(self, name: str, change: Callable[[str], str]) -> Iterator[None]:
        """Change a file of the pipeline, for the block."""
        path = self.project.pipeline / name
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before
        try:
            yield
        finally:
            path.write_text(before)


def fake_docker(folder: Path, script: str) -> dict[str, str]:
    """Return a PATH with git and a docker that runs the script; without docker for ""."""
    git = shutil.which("git")
    assert git
    (folder / "git").symlink_to(git)
    if script:
        (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "docker").chmod(0o755)
    return {"PATH": str(folder)}


def build(patient: Patient, **settings: str) -> None:
    """Commit, and build the commit as the pusher."""
    patient.project.commit(**settings)
    built = patient.project.ship(
        "build", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("PUSHER")
    )
    assert built.returncode == 0, built.stderr


def fails(patient: Patient, verb: str, which: str, code: int = 1, **more: str) -> str:
    """Run a verb that must fail and point to the doctor; return its standard error."""
    ended = patient.project.ship(
        verb, "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as(which), **more
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count("ship: ") == 1, ended.stderr
    assert f"-> ./ship doctor {NAME} --env staging" in ended.stderr
    return ended.stderr
