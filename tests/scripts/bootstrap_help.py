"""A team's repository, bare projects, and their owner, who runs `ship bootstrap`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from emulator.names import project_number
from scripts.config import pipelines
from scripts.setup import permissions
from scripts.setup.permissions import Binding, Federation
from tests.conftest import ROOT, LocalCloudRun
from tests.federation_help import REPOSITORY
from tests.identity_help import Owner
from tests.scripts.conftest import Project

NAME = "svc"
ADMIN = "admin@acme-staging.iam.gserviceaccount.com"
OPS, STAGING, PRODUCTION = "team-ops", "team-staging", "team-prod"
CONNECTED = f"projects/{OPS}/locations/us-central1/connections/github/repositories/acme-app"
CLOUD_BUILD = ("--trigger", "cloud-build", "--connection", CONNECTED)
IDS = ("--repository", "acme/app", "--repository-id", "4711", "--owner-id", "42")
ENVIRONMENT = """
project: {project}
regions: [us-central1]
registry: us-central1-docker.pkg.dev/team-ops/services
access: {access}
{after}
endpoint: {endpoint}
builder: cloud-build
builds_as: builder@team-ops.iam.gserviceaccount.com
platform: host
rollout:
  steps: [50, 100]
overlay:
  spec:
    template:
      spec:
        serviceAccountName: runtime@{project}.iam.gserviceaccount.com
"""


class Team:
    """A repository, bare projects, and their owner."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, access: str = "private") -> None:
        self.folder = folder
        self.project = Project(folder / "repository", cloud_run, NAME)
        shutil.copytree(ROOT / "cloudbuild", self.project.folder / "cloudbuild")
        self.write("staging", STAGING, cloud_run, access)
        self.write("production", PRODUCTION, cloud_run, access, "after: staging")
        self.project.commit()
        self.owner = Owner(cloud_run)
        self.owner.trust_github()
        self.owner.let_github_impersonate(ADMIN)
        for name in (OPS, STAGING, PRODUCTION):
            body = {"projectId": name, "owner": f"serviceAccount:{ADMIN}"}
            cloud_run.local("POST", "projects", body)
        self.admin = self.owner.credentials(folder / "admin.json", self.owner.job(), ADMIN)
        self.bin = folder / "bin"
        self.bin.mkdir()
        self._http: requests.Session | None = None

    def write(
        self, env: str, project: str, cloud_run: LocalCloudRun, access: str, after: str = ""
    ) -> None:
        text = ENVIRONMENT.format(
            project=project, access=access, after=after, endpoint=cloud_run.url
        )
        (self.project.pipeline / f"{env}.yaml").write_text(text)

    def bootstrap(self, env: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run it as the owner; without gh, which takes longer to start than all the rest."""
        given = {"GOOGLE_APPLICATION_CREDENTIALS": str(self.admin)}
        given["PATH"] = without_gh(self.folder)
        return self.project.ship("bootstrap", "--env", env, *IDS, *words, **{**given, **more})

    def plan(self, env: str, *words: str) -> Any:
        ended = self.bootstrap(env, "--dry-run", "--format", "json", *words)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def set_up(self, env: str, *words: str) -> Any:
        ended = self.bootstrap(env, "--yes", "--format", "json", *words)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def ship(self, env: str, *words: str, build: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command as the job of an environment, or as the job that builds."""
        access = self.access(env)
        job = self.owner.job(**({} if build else {"environment": env}))
        self.owner.provider = access.provider.name
        email = (access.pusher if build else access.deployer).email
        file = self.owner.credentials(self.folder / "job.json", job, email)
        return self.project.ship(*words, "--env", env, GOOGLE_APPLICATION_CREDENTIALS=str(file))

    def done(self, env: str, *words: str, build: bool = False) -> str:
        """Run a job's command, which must succeed; return its output."""
        ended = self.ship(env, *words, build=build)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def owner_of_projects(self) -> requests.Session:
        """Return the owner's own client, to read the real state and to change it."""
        if self._http is None:
            self._http = requests.Session()
            token = self.owner.token_of(f"serviceAccount:{ADMIN}")
            self._http.headers["Authorization"] = f"Bearer {token}"
        return self._http

    def policy(self, resource: str) -> list[Any]:
        """Return the bindings of a resource's policy."""
        bindings: list[Any] = self._policy(resource).get("bindings", [])
        return bindings

    def _policy(self, resource: str) -> Any:
        http, url = self.owner_of_projects(), f"{self.owner.url}/v1/{resource}"
        if resource.startswith("b/"):
            return http.get(f"{self.owner.url}/storage/v1/{resource}/iam").json()
        reads_with_get = "/locations/" in resource or "/secrets/" in resource
        return (http.get if reads_with_get else http.post)(f"{url}:getIamPolicy").json()

    def change(self, resource: str, how: Callable[[list[Any]], list[Any]]) -> None:
        """Change the bindings of a resource's policy by hand."""
        policy = self._policy(resource)
        policy["bindings"] = how(policy.get("bindings", []))
        http, url = self.owner_of_projects(), f"{self.owner.url}/v1/{resource}:setIamPolicy"
        if resource.startswith("b/"):
            answer = http.put(f"{self.owner.url}/storage/v1/{resource}/iam", json=policy)
        else:
            answer = http.post(url, json={"policy": policy})
        assert answer.ok, answer.text

    def give(self, resource: str, role: str, member: str, **more: Any) -> None:
        """Grant a role by hand."""
        self.change(resource, lambda kept: [*kept, {"role": role, "members": [member], **more}])

    def take(self, binding: Binding) -> None:
        """Remove a role from its member by hand, if it is granted."""

        def change(kept: list[Any]) -> list[Any]:
            return [
                {**one, "members": [m for m in one["members"] if m != binding.member]}
                if one["role"] == binding.role
                else one
                for one in kept
            ]

        self.change(binding.resource.path, change)

    def leave(self, project: str) -> None:
        """Remove the owner of a project."""
        self.change(
            f"projects/{project}", lambda kept: [b for b in kept if b["role"] != "roles/owner"]
        )

    def access(self, env: str) -> Federation:
        """Return the access in an environment that permissions.py plans."""
        pipeline = pipelines.load(self.project.folder, NAME, env)
        after = pipeline.environment.after
        earlier = [pipelines.load(self.project.folder, NAME, after)] if after else []
        numbers = {name: project_number(name) for name in (OPS, STAGING, PRODUCTION)}
        return permissions.plan(REPOSITORY, [pipeline], earlier, numbers)


@contextmanager
def team_of(folder: Path, access: str = "private") -> Iterator[Team]:
    """Run a team with a local Cloud Run that enforces IAM."""
    cloud_run = LocalCloudRun(folder / "state", "--iam", "enforce")
    made = Team(folder, cloud_run, access)
    yield made
    made.owner.http.close()
    made.owner_of_projects().close()
    cloud_run.stop()


def without_gh(folder: Path) -> str:
    """Return a search path with git, and without gh."""
    (programs := folder / "without-gh").mkdir(exist_ok=True)
    if not (programs / "git").exists():
        (programs / "git").symlink_to(shutil.which("git") or "")
    return str(programs)
