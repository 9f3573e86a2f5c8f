"""What the checks know of each other's findings: the files, who asks, the plan of access."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.core import config, federation, github
from scripts.core.config import Pipeline
from scripts.core.errors import ShipError, UsageError
from scripts.core.federation import Federation, Repository, Resource
from scripts.core.google import Google

APIS = {
    "artifactregistry": "images are kept there",
    "cloudresourcemanager": "the project's policy is read there",
    "iam": "accounts and the provider are there",
    "iamcredentials": "jobs speak as their account through it",
    "logging": "the last log lines of what failed are read there",
    "run": "it runs the service",
    "secretmanager": "the manifest names secrets",
    "sts": "GitHub's tokens are exchanged there",
}


class Case:
    """One examination.

    Attributes:
        account: whose the credentials are; None until that is known, or where there are none.
        numbers: project ID -> number, as far as they could be read.
        repository: at GitHub; None where that is not known.
        unknown: why it is not.
    """

    def __init__(self, root: Path, pipeline: Pipeline) -> None:
        self.root = root
        self.pipeline = pipeline
        self.environment = pipeline.environment
        # Nothing is ever written (I10).
        self.google = Google(pipeline, dry_run=True)
        self.account: str | None = None
        self.numbers: dict[str, str] = {}
        self.repository: Repository | None = None
        self.unknown = ""
        try:
            self.repository = github.repository(root)
        except ShipError as error:
            self.unknown = error.message

    @property
    def takes_credentials(self) -> bool:
        """Whether anybody has to be allowed anything here."""
        return self.environment.credentials != "none"

    @property
    def images(self) -> Resource:
        """The repository of Artifact Registry."""
        host, project, name = self.environment.registry.split("/")
        location = host.removesuffix("-docker.pkg.dev")
        return Resource(kind="repository", project=project, location=location, name=name)

    @property
    def service(self) -> Resource:
        """The service in the environment's first region."""
        return Resource(
            kind="service",
            project=self.environment.project,
            location=self.environment.regions[0],
            name=self.pipeline.service,
        )

    @property
    def projects(self) -> list[str]:
        """The environment's project, and the one that holds the images."""
        return list(dict.fromkeys([self.environment.project, self.images.project]))

    def context(self) -> dict[str, str]:
        """What `known.explain` may name."""
        named = {
            "where": self.pipeline.where,
            "env": self.pipeline.env,
            "project": self.environment.project,
            "service": self.pipeline.service,
        }
        return {**named, "account": self.account} if self.account else named

    def plan(self) -> Federation:
        """Who should be allowed what in this environment.

        Raises:
            UsageError: the repository's or a project's number is not known, or files are wrong.
        """
        if self.repository is None:
            raise UsageError(self.unknown)
        missing = [project for project in self.projects if project not in self.numbers]
        if missing:
            raise UsageError(f"the number of project {missing[0]} could not be read")
        env = self.pipeline.env
        pipelines = [
            config.load(self.root, name, env)
            for name in config.services(self.root)
            if env in config.environments(self.root, name)
        ]
        earlier = [
            config.load(self.root, one.service, one.environment.after)
            for one in pipelines
            if one.environment.after
        ]
        return federation.plan(self.repository, pipelines, earlier, self.numbers)

    def read(self, resource: Resource, verb: str = "") -> dict[str, Any]:
        """Read a resource (not a project), or its policy with `:getIamPolicy`."""
        api, path = _address(resource)
        posts = resource.kind in ("project", "account")
        if verb and posts:
            return self.google.query(api, path + verb, {})
        return self.google.get(api, path + verb)

    def may(self, resource: Resource, permissions: list[str]) -> set[str]:
        """Which permissions these credentials have on a resource, whether it is there or not."""
        api, path = _address(resource)
        body = {"permissions": permissions}
        answer = self.google.query(api, f"{path}:testIamPermissions", body)
        return set(answer.get("permissions") or [])


def _address(resource: Resource) -> tuple[str, str]:
    api = {
        "project": "cloudresourcemanager",
        "repository": "artifactregistry",
        "account": "iam",
        "service": "run",
        "secret": "secretmanager",
    }[resource.kind]
    return api, f"/v1/{resource.path}"


def grant(resource: Resource, role: str, member: str) -> str:
    """The gcloud command that gives a role on a resource."""
    what, *more = {
        "project": [f"projects add-iam-policy-binding {resource.project}", "--condition None"],
        "repository": [
            f"artifacts repositories add-iam-policy-binding {resource.name}",
            f"--location {resource.location}",
        ],
        "account": [f"iam service-accounts add-iam-policy-binding {resource.name}"],
        "service": [
            f"run services add-iam-policy-binding {resource.name}",
            f"--region {resource.location}",
        ],
        "secret": [f"secrets add-iam-policy-binding {resource.name}"],
    }[resource.kind]
    project = [] if resource.kind == "project" else [f"--project {resource.project}"]
    return " ".join(["gcloud", what, *project, *more, f"--member {member}", f"--role {role}"])
