"""The context of the checks: the files, the caller, the planned access."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from scripts.cloud.google import Google
from scripts.cloud.patience import Patience
from scripts.config import pipelines
from scripts.config.pipelines import Pipeline
from scripts.errors import ShipError, UsageError
from scripts.setup import github, permissions, resources, steps
from scripts.setup.identity_provider import Repository
from scripts.setup.permissions import Binding, Federation
from scripts.setup.resources import Resource

# Each check says soon what is wrong.
_PATIENCE_SECONDS = 10.0


class Named(NamedTuple):
    """The parts of the GitHub repository that the command line names."""

    repository: str | None = None
    owner_id: int | None = None
    repository_id: int | None = None


class Case:
    """One run of the doctor.

    Attributes:
        account: the account that the credentials belong to; None until known, or without any.
        numbers: project ID -> number, of those that could be read.
        repository: at GitHub; None if unknown.
        unknown: why the repository is unknown.
        by_cloud_build: whether Cloud Build delivers, instead of GitHub's jobs.
        connection: the repository's name in Cloud Build; None if it was not given.
    """

    def __init__(
        self,
        root: Path,
        pipeline: Pipeline,
        named: Named = Named(),  # noqa: B008  (it never changes)
        *,
        by_cloud_build: bool = False,
        connection: str | None = None,
    ) -> None:
        self.root = root
        self.by_cloud_build = by_cloud_build
        self.connection = connection
        self.pipeline = pipeline
        self.environment = pipeline.environment
        # A doctor never writes (I10).
        self.google = Google(pipeline, dry_run=True, patience=Patience(_PATIENCE_SECONDS))
        self.account: str | None = None
        self.numbers: dict[str, str] = {}
        self.repository: Repository | None = None
        self.unknown = ""
        try:
            self.repository = _repository(root, named)
        except ShipError as error:
            self.unknown = error.message

    @property
    def takes_credentials(self) -> bool:
        """Whether requests carry Google credentials."""
        return self.environment.credentials == "google"

    @property
    def images(self) -> Resource:
        """The repository in Artifact Registry."""
        return resources.images(self.pipeline)

    @property
    def services(self) -> list[Resource]:
        """The service in each region."""
        return resources.services(self.pipeline)

    @property
    def projects(self) -> list[str]:
        """The environment's project, and the project that holds the images."""
        return list(dict.fromkeys([self.environment.project, self.images.project]))

    @property
    def pipelines(self) -> list[Pipeline]:
        """Every service that has the environment.

        Raises:
            UsageError: a file is wrong.
        """
        return pipelines.load_all(self.root, self.pipeline.env)

    def context(self) -> dict[str, str]:
        """Return the context for `known_errors.explain`, and project number -> ID."""
        named = {
            "where": self.pipeline.where,
            "env": self.pipeline.env,
            "project": self.environment.project,
            "service": self.pipeline.service,
            "is_local": "" if self.takes_credentials else "yes",
            **{number: name for name, number in self.numbers.items()},
        }
        return {**named, "account": self.account} if self.account else named

    @property
    def unnumbered(self) -> list[str]:
        """The projects whose number is unknown: names that contain it cannot be compared."""
        return [project for project in self.projects if project not in self.numbers]

    def plan(self) -> Federation:
        """Return who should be allowed what in this environment.

        Raises:
            UsageError: the repository's numbers are unknown, or a file is wrong.
        """
        if self.repository is None:
            raise UsageError(self.unknown)
        declared = self.pipelines
        numbers = {**dict.fromkeys(self.projects, "0"), **self.numbers}
        access = permissions.plan(self.repository, declared, pipelines.earlier(declared), numbers)
        if self.by_cloud_build:
            return permissions.for_cloud_build(access, self.repository, declared)
        return access

    def read(self, resource: Resource) -> dict[str, Any]:
        """Read a resource."""
        return self.google.get(resource.api, f"/v1/{resource.path}")

    def may(self, resource: Resource, permissions: list[str]) -> set[str]:
        """Return which of the permissions these credentials have on a resource."""
        if resource.kind == "bucket":
            path = f"/storage/v1/{resource.path}/iam/testPermissions"
            answer = self.google.get(resource.api, path, permissions=permissions)
        else:
            path = f"/v1/{resource.path}:testIamPermissions"
            answer = self.google.query(resource.api, path, {"permissions": permissions})
        return set(answer.get("permissions") or [])


def grant(resource: Resource, role: str, member: str) -> str:
    """Return the gcloud command that grants a role on a resource."""
    binding = Binding(role=role, resource=resource, member=member, why="")
    return steps.policy_command("add", binding)


def _repository(root: Path, named: Named) -> Repository:
    """Find the repository at GitHub: as named, else from a job's variables, else origin and gh.

    Source: https://docs.github.com/en/actions/reference/workflows-and-actions/variables.
    """
    if not any(named):
        ids = [os.environ.get(f"GITHUB_REPOSITORY_{name}", "") for name in ("OWNER_ID", "ID")]
        owner_id, repository_id = (int(text) if text.isdecimal() else None for text in ids)
        named = Named(os.environ.get("GITHUB_REPOSITORY"), owner_id, repository_id)
    return github.repository(root, *named)
