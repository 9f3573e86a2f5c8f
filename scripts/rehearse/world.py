"""The world of a rehearsal: a scratch clone, a scratch Cloud Run that enforces IAM, and identities.

The identities are those of scripts/setup/permissions.py, made as `ship bootstrap` makes them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from scripts import HOME
from scripts.cloud.google import Google
from scripts.config import workflows
from scripts.config.pipelines import ENDPOINT_VARIABLE, Pipeline, earlier
from scripts.errors import Failed
from scripts.machine import git, scratch
from scripts.rehearse.clone import ScratchClone, all_pipelines
from scripts.rehearse.owner import Owner
from scripts.rehearse.workflow import Job, Workflow
from scripts.setup import cloud, permissions, steps
from scripts.setup.identity_provider import Repository
from scripts.setup.permissions import Federation

_OWNER_ID, _REPOSITORY_ID = 1001, 2002  # as the local issuer has them


class World:
    """The world of one rehearsal.

    Args:
        root: The repository.
        folder: A scratch folder.
        builder: "docker" or "cloud-build".
        bake: How long each step is watched, such as "0s".
        ref: The branch that the workflow runs on, such as "refs/heads/main".

    Attributes:
        before: What GitHub names as the commit before the push: forty zeros if there is none.
    """

    def __init__(self, root: Path, folder: Path, *, builder: str, bake: str, ref: str) -> None:
        self.root = root
        self.folder = folder
        self.builder = builder
        self.ref = ref
        self.clone = folder / "clone"
        self.repository = _repository(root)
        # A killed command leaves its scratch folders here; they are deleted with the rehearsal.
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        name = f"{self.repository.owner}/{self.repository.name}"
        self._scratch_clone = ScratchClone(
            root, self.clone, branch=ref.removeprefix("refs/heads/"), repository=name,
            builder=builder, bake=bake,
        )  # fmt: skip
        self.before = self._scratch_clone.before
        self.pipelines = all_pipelines(self.clone)
        self.environments = sorted({p.env for p in self.pipelines})
        self.access: dict[str, Federation] = {}

    def __enter__(self) -> World:
        with ExitStack() as stack:
            runtime = "docker" if self.builder == "docker" else "process"
            started = scratch.local_cloud_run(
                self.folder / "cloud-run", runtime=runtime, iam="enforce"
            )
            cloud_run = stack.enter_context(started)
            self.url = cloud_run.url
            self.owner = stack.enter_context(Owner(cloud_run))
            self._let_in()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that send every command here, not to Google."""
        return {
            ENDPOINT_VARIABLE: self.url,
            "SHIPWAY_VENV": sys.prefix,
            "TMPDIR": str(self.scratch),
            # act gives steps a terminal; GitHub does not.
            "TERM": "dumb",
            "NO_COLOR": "1",
            # google-github-actions/auth: the hosts that it asks.
            "GHA_ENDPOINT_OVERRIDE_sts": f"{self.url}/v1",
            "GHA_ENDPOINT_OVERRIDE_iamcredentials": f"{self.url}/v1",
        }

    @property
    def variables(self) -> dict[str, str]:
        """The GitHub variables of the repository."""
        return next(iter(self.access.values())).repository_variables

    def variables_of(self, job: Job) -> dict[str, str]:
        """Return the variables of a job's GitHub Environment."""
        access = self.access.get(job.environment or "")
        return access.environment_variables if access else {}

    def token_request(
        self, job: Job, workflow: str, event: str, ref: str | None = None
    ) -> dict[str, str]:
        """Return the two variables that a job needs to ask for OIDC tokens, if it may.

        Args:
            job: The job.
            workflow: The file that the run starts from.
            event: The event that starts it.
            ref: The branch; None for the rehearsal's own.
        """
        if not job.tokens:
            return {}
        ref = ref or self.ref
        name = f"{self.repository.owner}/{self.repository.name}"
        claims: dict[str, Any] = {
            "repository": name,
            "repository_id": str(self.repository.repository_id),
            "repository_owner_id": str(self.repository.owner_id),
            "ref": ref,
            "event_name": event,
            "workflow_ref": f"{name}/.github/workflows/{workflow}@{ref}",
            "job_workflow_ref": f"{name}/.github/workflows/{job.file}@{ref}",
            **({"environment": job.environment} if job.environment else {}),
        }
        made: dict[str, str] = self.owner.post("/_local/github/jobs", claims)
        return made

    def event(self, workflow: Workflow) -> dict[str, Any]:
        """Return the event that starts the workflow, with the fields that are used."""
        owner = {"login": self.repository.owner, "id": self.repository.owner_id}
        head = git.commit(self.clone).sha
        event: dict[str, Any] = {
            "ref": self.ref,
            "before": self.before,
            "after": head,
            "inputs": workflow.inputs,
            "repository": {
                "id": self.repository.repository_id,
                "name": self.repository.name,
                "full_name": f"{self.repository.owner}/{self.repository.name}",
                "owner": owner,
                "private": False,
                "default_branch": "main",
            },
            "sender": {"login": git.actor()},
        }
        if workflow.event == "pull_request":
            event["number"] = 1
            event["pull_request"] = {
                "number": 1,
                "head": {"ref": "rehearsed", "sha": head},
                "base": {"ref": "main", "sha": git.commit(self.clone, "HEAD~1").sha},
            }
        return event

    def ship(self, *arguments: str, environment: str | None = None) -> dict[str, Any]:
        """Run a command in the clone as a job on the main branch does, and return its JSON.

        Args:
            arguments: The command line.
            environment: The GitHub Environment that the job is in; None for the build.

        Raises:
            Failed: the command failed.
        """
        access = self.access[environment] if environment else next(iter(self.access.values()))
        account = access.deployer if environment else access.pusher
        file = workflows.DELIVER_TO if environment else workflows.BUILD
        job = Job(id="before", file=file, key="before", environment=environment, tokens=True)
        done = subprocess.run(
            [sys.executable, str(HOME / "scripts"), *arguments, "--format", "json"],
            cwd=self.clone,
            env={
                **os.environ,
                ENDPOINT_VARIABLE: self.url,
                "TMPDIR": str(self.scratch),
                "GOOGLE_APPLICATION_CREDENTIALS": str(self._credentials(job, account.email)),
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Failed(
                f"before the rehearsal: ./ship {' '.join(arguments)}: exit code {done.returncode}",
                evidence=done.stderr.strip().splitlines()[-20:],
            )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def services(self) -> dict[str, Any]:
        """Return every service: ENVIRONMENT/REGION/SERVICE -> the Knative Service."""
        return {
            f"{p.env}/{region}/{p.service}": self.owner.get(
                f"/v1/projects/{p.environment.project}/locations/{region}/services/{p.service}"
            )
            for p in self.pipelines
            for region in p.environment.regions
        }

    def _credentials(self, job: Job, email: str) -> Path:
        """Write the file that google-github-actions/auth writes."""
        asked = self.token_request(job, workflows.DELIVER, "push", workflows.BRANCH)
        provider = next(iter(self.access.values())).provider.name
        audience = f"https://iam.googleapis.com/{provider}"
        file = self.folder / f"credentials-{email.partition('@')[0]}.json"
        accounts = f"{self.url}/v1/projects/-/serviceAccounts"
        file.write_text(
            json.dumps(
                {
                    "type": "external_account",
                    "audience": f"//iam.googleapis.com/{provider}",
                    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                    "token_url": f"{self.url}/v1/token",
                    "service_account_impersonation_url": f"{accounts}/{email}:generateAccessToken",
                    "credential_source": {
                        "url": f"{asked['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={audience}",
                        "headers": {
                            "Authorization": f"Bearer {asked['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"
                        },
                        "format": {"type": "json", "subject_token_field_name": "value"},
                    },
                }
            )
        )
        return file

    def take_up(self) -> None:
        """Move the clone from the previous commit to the one that is rehearsed."""
        self._scratch_clone.take_up()

    def leave_main(self, branch: str) -> None:
        """Make the rehearsed commit one of a branch only, which main does not have."""
        scratch.git("checkout", "--quiet", "-b", branch, cwd=self.clone)
        main = workflows.BRANCH.removeprefix("refs/heads/")
        scratch.git("branch", "--quiet", "--force", main, "HEAD~1", cwd=self.clone)

    def declared(self, env: str) -> list[Pipeline]:
        """Return every service that has an environment."""
        return [pipeline for pipeline in self.pipelines if pipeline.env == env]

    def _let_in(self) -> None:
        """Set everything up as `ship bootstrap` does, with the owner's token."""
        here = [_at(self.url, pipeline) for pipeline in self.pipelines]
        for env in self.environments:
            ours = [p for p in here if p.env == env]
            google = Google(ours[0], token=self.owner.token)
            projects = [permissions.home(here), *(p.environment.project for p in ours)]
            numbers = cloud.numbers(google, projects)
            access = permissions.plan(self.repository, ours, earlier(ours), numbers)
            found = cloud.look(google, access, ours)
            for step in steps.plan(access, ours, found):
                cloud.do(google, step)
            self.access[env] = access


def _repository(root: Path) -> Repository:
    """Return this repository at GitHub, by the name that its origin has there."""
    owner, _, name = (git.github_name(root) or f"owner/{root.name}").partition("/")
    return Repository(owner=owner, owner_id=_OWNER_ID, name=name, repository_id=_REPOSITORY_ID)


def _at(url: str, pipeline: Pipeline) -> Pipeline:
    """Return a service's files with an endpoint that stands in for Google's."""
    environment = msgspec.structs.replace(pipeline.environment, endpoint=url)
    return msgspec.structs.replace(pipeline, environment=environment)
