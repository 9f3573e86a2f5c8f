"""Artifact Registry's repositories: created before a push, with immutable tags on request.

Source: the discovery document artifactregistry.v1 and
https://cloud.google.com/artifact-registry/docs/docker/troubleshoot#push (the error of an immutable
tag). The name of an image has no location: repositories of one name in two locations share their
images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict

from emulator import clock, fields
from emulator.artifacts import cleanup
from emulator.errors import ApiError, invalid
from emulator.registry.errors import OciError
from emulator.store import Store

Document = dict[str, Any]

_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SETTABLE = {
    "cleanupPolicies", "cleanupPolicyDryRun", "description", "dockerConfig", "format", "labels",
    "mode", "vulnerabilityScanningConfig",
}  # fmt: skip
_CHANGEABLE = _SETTABLE - {"format", "mode"}
_WITH_PARTS = {"cleanupPolicies", "dockerConfig", "labels", "vulnerabilityScanningConfig"}
# Google ignores these fields in a write, so that a client can send back what it read.
_READ_ONLY = {"createTime", "name", "registryUri", "satisfiesPzi", "satisfiesPzs", "sizeBytes",
          "updateTime"}  # fmt: skip


class _DockerConfig(TypedDict, total=False):
    immutableTags: bool


class _Fields(TypedDict, total=False):
    """The types of a repository's fields."""

    cleanupPolicies: dict[str, dict[str, Any]]
    cleanupPolicyDryRun: bool
    description: str
    dockerConfig: _DockerConfig
    format: str
    labels: dict[str, str]
    mode: str
    vulnerabilityScanningConfig: dict[str, str]


class Repository(NamedTuple):
    """A repository of Docker images."""

    project: str
    location: str
    name: str

    @property
    def path(self) -> str:
        """The resource name of the repository."""
        return f"projects/{self.project}/locations/{self.location}/repositories/{self.name}"


class Repositories:
    """The repositories that were created. A project that `is_made` has no others.

    Methods that fail raise ApiError, unless they name OciError; the docstrings name the status.
    """

    def __init__(self, store: Store, is_made: Callable[[str], bool]) -> None:
        self._store = store
        self._is_made = is_made
        self._known: dict[Repository, Document] = {}
        for document in store.documents("repositories"):
            self._known[_named(document["name"])] = document

    def create(self, repository: Repository, body: Document) -> Document:
        """Create a repository; raise INVALID_ARGUMENT or ALREADY_EXISTS."""
        if not _ID.fullmatch(repository.name):
            raise invalid(
                "must be 1 to 63 lowercase letters, digits and hyphens, and begin with a letter.",
                "repository_id",
            )
        sent = _settable(body)
        if sent.get("format") != "DOCKER":
            raise invalid("The local Cloud Run only has DOCKER repositories.", "format")
        cleanup.check(sent.get("cleanupPolicies", {}))
        if repository in self._known:
            raise ApiError("ALREADY_EXISTS", "the repository already exists")
        if sent.get("mode", "MODE_UNSPECIFIED") == "MODE_UNSPECIFIED":
            sent["mode"] = "STANDARD_REPOSITORY"
        now = clock.now()
        return self._keep(
            repository,
            {
                "name": repository.path,
                **sent,
                "createTime": now,
                "updateTime": now,
            },
        )

    def get(self, repository: Repository) -> Document | None:
        """Return a repository that was created; None if it was not."""
        return self._known.get(repository)

    def all(self, project: str, location: str) -> list[Document]:
        """Return the created repositories of a project and location, sorted by name."""
        found = sorted(self._known.items())
        return [one for at, one in found if (at.project, at.location) == (project, location)]

    def patch(self, repository: Repository, body: Document, mask: str) -> Document:
        """Change the fields that `mask` names; raise NOT_FOUND or INVALID_ARGUMENT."""
        current = self._known.get(repository)
        if current is None:
            raise missing(repository)
        sent = _settable(body)
        changed = dict(current)
        for path in filter(None, mask.split(",")) if mask else sent:
            name, _, part = fields.camel(path).partition(".")
            if name not in _CHANGEABLE or (part and name not in _WITH_PARTS):
                raise invalid(f"'{path}' cannot be changed.", "updateMask")
            value = sent.get(name)
            changed[name] = {**changed.get(name, {}), **(value or {})} if part else value
        changed = {name: value for name, value in changed.items() if value is not None}
        cleanup.check(changed.get("cleanupPolicies", {}))
        return self._keep(repository, {**changed, "updateTime": clock.now()})

    def delete(self, repository: Repository) -> None:
        """Delete a repository, but not its images; raise NOT_FOUND."""
        if repository not in self._known:
            raise missing(repository)
        self._store.delete(_file(repository))
        del self._known[repository]

    def exists(self, project: str, name: str) -> bool:
        """Return whether a repository can be pushed to, in any location."""
        return not self._is_made(project) or any(self._of(project, name))

    def has_others(self, project: str) -> bool:
        """Return whether a project has repositories that were not created."""
        return not self._is_made(project)

    # The registry's rules: `emulator.registry.models.Rules`

    def check_name(self, name: str) -> None:
        """Raise OciError NAME_UNKNOWN for an image in a repository that does not exist."""
        project, _, rest = name.partition("/")
        repository = rest.partition("/")[0]
        if not self.exists(project, repository):
            raise OciError("NAME_UNKNOWN", f'Repository "{repository}" not found')

    def check_tag(self, name: str, tag: str, *, verb: str = "update") -> None:
        """Raise OciError MANIFEST_INVALID if the tags of the image `name` are immutable."""
        if self.is_immutable(name):
            raise OciError(
                "MANIFEST_INVALID",
                f"cannot {verb} tag {tag}. The repository has enabled tag immutability",
            )

    def is_immutable(self, name: str) -> bool:
        """Return whether the tags of an image, PROJECT/REPOSITORY/NAME, are immutable."""
        project, _, rest = name.partition("/")
        found = self._of(project, rest.partition("/")[0])
        return any(one.get("dockerConfig", {}).get("immutableTags") for one in found)

    def _of(self, project: str, name: str) -> Iterator[Document]:
        for at, document in self._known.items():
            if (at.project, at.name) == (project, name):
                yield document

    def _keep(self, repository: Repository, document: Document) -> Document:
        self._store.write(_file(repository), document)
        self._known[repository] = document
        return document


def missing(repository: Repository) -> ApiError:
    """Return the error for a repository that does not exist."""
    return ApiError("NOT_FOUND", f'Repository "{repository.path}" was not found.')


def _named(path: str) -> Repository:
    _, project, _, location, _, name = path.split("/")
    return Repository(project, location, name)


def _file(repository: Repository) -> str:
    return f"repositories/{repository.project}/{repository.location}/{repository.name}.json"


def _settable(body: Document) -> Document:
    """Return the fields of a body that a client can set; raise a 400 ApiError for unknown ones."""
    fields.check_known(body, _SETTABLE | _READ_ONLY)
    body = fields.typed(body, _Fields)
    sent = {name: body[name] for name in sorted(_SETTABLE) if name in body}
    if policies := sent.get("cleanupPolicies"):
        sent["cleanupPolicies"] = {
            key: cleanup.canonical(policy) for key, policy in policies.items()
        }
    return sent
