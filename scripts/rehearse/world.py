"""What a rehearsal happens in: a scratch clone, a scratch Cloud Run that enforces IAM, identities.

The clone differs from the repository in its environment files alone: bakes are short, and where
there is no Docker images are packed. The identities are those of scripts/core/federation.py.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import requests
import yaml

from scripts.core import HOME, config, federation, git, scratch
from scripts.core.bootstrap import cloud, steps
from scripts.core.config import ENDPOINT_VARIABLE, Pipeline
from scripts.core.errors import Failed, UsageError
from scripts.core.federation import Account, Federation, Repository, Resource
from scripts.core.google import Google
from scripts.rehearse.workflow import Job, Workflow

_OWNER = "user:owner@localhost"
_NUMBERS = {
    "owner_id": 1001,
    "repository_id": 2002,
}  # this repository's, as the local issuer has it


class World:
    """A place to rehearse in.

    Args:
        root: the repository.
        folder: a scratch folder.
        builder: "docker" or "pack".
        bake: how long each step is watched, such as "0s".
        ref: what the workflow runs on, such as "refs/heads/main".
    """

    def __init__(self, root: Path, folder: Path, *, builder: str, bake: str, ref: str) -> None:
        self.root = root
        self.folder = folder
        self.builder = builder
        self.bake = bake
        self.ref = ref
        self.clone = folder / "clone"
        self.repository = _repository(root)
        # What is killed half-way leaves its scratch folders here: they go with the rehearsal.
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        self._clone()
        self.pipelines = pipelines(self.clone)
        self.environments = sorted({p.env for p in self.pipelines})
        self.access: dict[str, Federation] = {}

    def __enter__(self) -> World:
        with ExitStack() as stack:
            runtime = "docker" if self.builder == "docker" else "process"
            started = scratch.local_cloud_run(
                self.folder / "cloud-run", runtime=runtime, iam="enforce"
            )
            self.url = stack.enter_context(started).url
            self._owner = stack.enter_context(requests.Session())
            self._owner.trust_env = False
            token = self._post("/_local/access-tokens", {"member": _OWNER})["access_token"]
            self._owner.headers["Authorization"] = f"Bearer {token}"
            self._let_in(token)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that lead every command here, instead of to Google."""
        return {
            ENDPOINT_VARIABLE: self.url,
            "SHIPWAY_VENV": sys.prefix,
            "TMPDIR": str(self.scratch),
            # act gives steps a terminal; GitHub does not.
            "TERM": "dumb",
            "NO_COLOR": "1",
            # google-github-actions/auth: the hosts that it would ask instead.
            "GHA_ENDPOINT_OVERRIDE_sts": f"{self.url}/v1",
            "GHA_ENDPOINT_OVERRIDE_iamcredentials": f"{self.url}/v1",
        }

    @property
    def variables(self) -> dict[str, str]:
        """The repository's GitHub variables."""
        return next(iter(self.access.values())).repository_variables

    def variables_of(self, job: Job) -> dict[str, str]:
        """The variables of a job's GitHub Environment."""
        access = self.access.get(job.environment or "")
        return access.environment_variables if access else {}

    def token_request(
        self, job: Job, workflow: str, event: str, ref: str | None = None
    ) -> dict[str, str]:
        """The two variables with which a job asks for its OIDC token; none without permission."""
        if not job.tokens:
            return {}
        ref = ref or self.ref
        name = f"{self.repository.owner}/{self.repository.name}"
        path = f"{name}/.github/workflows/{workflow}@{ref}"
        claims: dict[str, Any] = {
            "repository": name,
            "repository_id": str(self.repository.repository_id),
            "repository_owner_id": str(self.repository.owner_id),
            "ref": ref,
            "event_name": event,
            "workflow_ref": path,
            "job_workflow_ref": path,
            **({"environment": job.environment} if job.environment else {}),
        }
        made: dict[str, str] = self._post("/_local/github/jobs", claims)
        return made

    def event(self, workflow: Workflow) -> dict[str, Any]:
        """The event that starts the workflow, as far as anybody asks it."""
        owner = {"login": self.repository.owner, "id": self.repository.owner_id}
        head = git.commit(self.clone).sha
        event: dict[str, Any] = {
            "ref": self.ref,
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
        """One command in the clone, as a job of the main branch would do it; returns its document.

        Args:
            arguments: the command line.
            environment: the GitHub Environment that the job is in; None for the build.

        Raises:
            Failed: it did.
        """
        access = self.access[environment] if environment else next(iter(self.access.values()))
        account = access.deployer if environment else access.pusher
        job = Job(id="before", environment=environment, tokens=True)
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
        """What there is of every service now: ENVIRONMENT/REGION/SERVICE -> the Knative Service."""
        return {
            f"{p.env}/{region}/{p.service}": self._get(
                f"/v1/projects/{p.environment.project}/locations/{region}/services/{p.service}"
            )
            for p in self.pipelines
            for region in p.environment.regions
        }

    def number(self, project: str) -> str:
        """A project's number."""
        return str(self._get(f"/v1/projects/{project}")["projectNumber"])

    def grant(self, account: Account, binding: federation.Binding) -> None:
        """Give an account what somebody else's binding gives."""
        self._grant(msgspec.structs.replace(binding, member=account.member))

    def access_token(self, account: Account) -> str:
        """An access token of an account, as Google's own machines get it."""
        made = self._post("/_local/access-tokens", {"member": account.member})
        return str(made["access_token"])

    def id_token(self, account: Account, audience: str) -> str:
        """An ID token of an account, as Google's own machines get it."""
        resource = Resource(kind="account", project=account.project, name=account.email)
        role = "roles/iam.serviceAccountOpenIdTokenCreator"
        self._grant(federation.Binding(role=role, resource=resource, member=_OWNER, why="metadata"))
        body = {"audience": audience, "includeEmail": True}
        path = f"/v1/projects/-/serviceAccounts/{account.email}:generateIdToken"
        return str(self._post(path, body)["token"])

    def secret(self, account: Account, version: str) -> str:
        """The value of a secret's version, as the account reads it.

        Raises:
            Failed: it may not, or there is none.
        """
        token = self.access_token(account)
        answer = requests.get(
            f"{self.url}/v1/{version}:access",
            headers={"Authorization": f"Bearer {token}"}, timeout=30,
        )  # fmt: skip
        return base64.b64decode(self._answer(answer)["payload"]["data"]).decode()

    def take_up(self) -> None:
        """Go on to the commit that is rehearsed; until then the clone is at the one before it."""
        scratch.git("read-tree", "--reset", "-u", self._head, cwd=self.clone)
        self._commit("Rehearse it")

    def _credentials(self, job: Job, email: str) -> Path:
        """The file that google-github-actions/auth writes."""
        asked = self.token_request(job, "deliver.yml", "push", "refs/heads/main")
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

    def _clone(self) -> None:
        self._head = git.commit(self.root).sha
        scratch.git("clone", "--quiet", self.root.resolve().as_uri(), str(self.clone))
        scratch.git(
            "checkout", "--quiet", "-B", self.ref.removeprefix("refs/heads/"), cwd=self.clone
        )
        name = f"{self.repository.owner}/{self.repository.name}"
        scratch.git("remote", "set-url", "origin", f"https://github.com/{name}", cwd=self.clone)
        declared = _declared(self.clone)
        with suppress(UsageError):  # the very first commit has none before it
            scratch.git("read-tree", "--reset", "-u", "HEAD~1", cwd=self.clone)
        if _declared(self.clone) != declared:
            # It adds a service or an environment: what was there before cannot be delivered there.
            scratch.git("read-tree", "--reset", "-u", "HEAD", cwd=self.clone)
        self._commit("Before it")

    def _commit(self, subject: str) -> None:
        """Commit the files at hand, with environments that suit a rehearsal."""
        for file in sorted((self.clone / "pipelines").glob("*/*.yaml")):
            if file.stem in ("service", "smoke", config.DEFAULT_ENV):
                continue
            said = yaml.safe_load(file.read_text())
            said["rollout"] = {**said.get("rollout", {}), "bake": self.bake}
            if self.builder == "pack":
                said |= {"builder": "pack", "platform": "host"}
            file.write_text(yaml.safe_dump(said, sort_keys=False))
        scratch.git("add", "--all", cwd=self.clone)
        scratch.git("commit", "--quiet", "--allow-empty", "--message", subject, cwd=self.clone)

    def _let_in(self, token: str) -> None:
        """Set everything up as `ship bootstrap` does, with the owner's own token."""
        here = [_at(self.url, pipeline) for pipeline in self.pipelines]
        for env in self.environments:
            ours = [p for p in here if p.env == env]
            before = {(p.service, p.environment.after) for p in ours}
            earlier = [p for p in here if (p.service, p.env) in before]
            google = Google(ours[0], token=token)
            projects = [federation.home(here), *(p.environment.project for p in ours)]
            numbers = cloud.numbers(google, projects)
            access = federation.plan(self.repository, ours, earlier, numbers)
            found = cloud.look(google, access, ours)
            for step in steps.plan(access, ours, found):
                cloud.do(google, step)
            self.access[env] = access

    def _grant(self, binding: federation.Binding) -> None:
        bound = {"role": binding.role, "members": [binding.member]}
        self._change(binding.resource, lambda old: [*old, bound])

    def _change(self, resource: Resource, how: Callable[[list[Any]], list[Any]]) -> None:
        """Change the bindings of a resource's policy."""
        reading = self._get if resource.kind in ("repository", "secret", "service") else self._ask
        policy = reading(f"/v1/{resource.path}:getIamPolicy")
        policy["bindings"] = how(policy.get("bindings", []))
        self._post(f"/v1/{resource.path}:setIamPolicy", {"policy": policy})

    def _ask(self, path: str) -> Any:
        return self._post(path, {})

    def _get(self, path: str) -> Any:
        return self._answer(self._owner.get(self.url + path, timeout=30))

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._answer(self._owner.post(self.url + path, json=body, timeout=30))

    @staticmethod
    def _answer(answer: requests.Response) -> Any:
        if not answer.ok:
            raise Failed(f"{answer.request.method} {answer.url}", evidence=[answer.text[:500]])
        return answer.json()


def _repository(root: Path) -> Repository:
    """This repository at GitHub, under the name that its origin has there."""
    origin = git.origin(root).removeprefix("https://github.com/")
    owner, _, name = origin.partition("/")
    if not owner or not name or "/" in name or ":" in owner:
        owner, name = "owner", root.name
    return Repository(owner=owner, name=name, **_NUMBERS)


def _at(url: str, pipeline: Pipeline) -> Pipeline:
    """A service's files with an endpoint that stands in for Google's."""
    environment = msgspec.structs.replace(pipeline.environment, endpoint=url)
    return msgspec.structs.replace(pipeline, environment=environment)


def _declared(root: Path) -> list[tuple[str, list[str]]]:
    return [(service, config.environments(root, service)) for service in config.services(root)]


def pipelines(root: Path) -> list[Pipeline]:
    """Every service in every environment but the local one.

    Raises:
        UsageError: there is none, or one of them is not right.
    """
    found = [
        config.load(root, service, env)
        for service in config.services(root)
        for env in config.environments(root, service)
        if env != config.DEFAULT_ENV
    ]
    if not found:
        raise UsageError("pipelines/ has no environment but local: there is nothing to rehearse")
    return found
