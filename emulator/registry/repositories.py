"""Artifact Registry's repositories: made before they are pushed to, with immutable tags if wanted.

Source: the discovery document artifactregistry.v1 and
https://cloud.google.com/artifact-registry/docs/docker/troubleshoot#push (the error of an immutable
tag). Clean-up policies are kept and shown; nothing is ever cleaned up. The names of images hold no
location: repositories of one name in two locations share their images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from emulator import clock
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
# Whoever changes a repository may send back what was read: Google ignores these.
_SHOWN = {"createTime", "name", "registryUri", "satisfiesPzi", "satisfiesPzs", "sizeBytes",
          "updateTime"}  # fmt: skip


class Repository(NamedTuple):
    """A repository of Docker images."""

    project: str
    location: str
    name: str

    @property
    def path(self) -> str:
        """Its resource name."""
        return f"projects/{self.project}/locations/{self.location}/repositories/{self.name}"


class Repositories:
    """The repositories that were created. Of a project that `is_made` there are no others."""

    def __init__(self, store: Store, is_made: Callable[[str], bool]) -> None:
        self._store = store
        self._is_made = is_made
        self._known: dict[Repository, Document] = {}
        for document in store.documents("repositories"):
            self._known[_named(document["name"])] = document

    def create(self, repository: Repository, body: Document) -> Document:
        """Make a repository; raises ApiError (INVALID_ARGUMENT, ALREADY_EXISTS)."""
        if not _ID.fullmatch(repository.name):
            raise invalid(
                "must be 1 to 63 lowercase letters, digits and hyphens, and begin with a letter.",
                "repository_id",
            )
        fields = _known(body, _SETTABLE)
        if fields.get("format") != "DOCKER":
            raise invalid("The local Cloud Run has repositories of format DOCKER alone.", "format")
        _check(fields)
        if repository in self._known:
            raise ApiError("ALREADY_EXISTS", "the repository already exists")
        if fields.get("mode", "MODE_UNSPECIFIED") == "MODE_UNSPECIFIED":
            fields["mode"] = "STANDARD_REPOSITORY"
        now = clock.now()
        return self._keep(
            repository,
            {
                "name": repository.path,
                **fields,
                "createTime": now,
                "updateTime": now,
            },
        )

    def get(self, repository: Repository) -> Document | None:
        """One repository that was created."""
        return self._known.get(repository)

    def all(self, project: str, location: str) -> list[Document]:
        """The repositories of a project and location that were created, by name."""
        found = sorted(self._known.items())
        return [one for at, one in found if (at.project, at.location) == (project, location)]

    def patch(self, repository: Repository, body: Document, mask: str) -> Document:
        """Change the fields that `mask` names; raises ApiError (NOT_FOUND, INVALID_ARGUMENT)."""
        current = self._known.get(repository)
        if current is None:
            raise missing(repository)
        fields = _known(body, _SETTABLE)
        changed = dict(current)
        for path in filter(None, mask.split(",")) if mask else fields:
            name, _, part = _camel(path).partition(".")
            if name not in _CHANGEABLE:
                raise invalid(f"'{path}' cannot be changed.", "updateMask")
            value = fields.get(name)
            changed[name] = {**changed.get(name, {}), **(value or {})} if part else value
        changed = {name: value for name, value in changed.items() if value is not None}
        _check(changed)
        return self._keep(repository, {**changed, "updateTime": clock.now()})

    def delete(self, repository: Repository) -> None:
        """Remove a repository; raises ApiError NOT_FOUND. Its images are the registry's concern."""
        if repository not in self._known:
            raise missing(repository)
        self._store.delete(_file(repository))
        del self._known[repository]

    def is_there(self, project: str, name: str) -> bool:
        """Whether a repository may be pushed to, in whichever location it is."""
        return not self._is_made(project) or any(self._of(project, name))

    def has_others(self, project: str) -> bool:
        """Whether a project has repositories that nobody created."""
        return not self._is_made(project)

    # What the registry asks

    def check_name(self, name: str) -> None:
        """Raise OciError NAME_UNKNOWN for an image in a repository that is not there."""
        project, _, rest = name.partition("/")
        repository = rest.partition("/")[0]
        if not self.is_there(project, repository):
            raise OciError("NAME_UNKNOWN", f'Repository "{repository}" not found')

    def check_tag(self, name: str, tag: str, *, verb: str = "update") -> None:
        """Raise OciError MANIFEST_INVALID where no tag may move, or be deleted."""
        if self.is_immutable(name):
            raise OciError(
                "MANIFEST_INVALID",
                f"cannot {verb} tag {tag}. The repository has enabled tag immutability",
            )

    def is_immutable(self, name: str) -> bool:
        """Whether the tags of an image, PROJECT/REPOSITORY/NAME, stay where they are."""
        project, _, rest = name.partition("/")
        found = self._of(project, rest.partition("/")[0])
        return any((one.get("dockerConfig") or {}).get("immutableTags") for one in found)

    def _of(self, project: str, name: str) -> Iterator[Document]:
        for at, document in self._known.items():
            if (at.project, at.name) == (project, name):
                yield document

    def _keep(self, repository: Repository, document: Document) -> Document:
        self._store.write(_file(repository), document)
        self._known[repository] = document
        return document


def missing(repository: Repository) -> ApiError:
    """The error of a repository that is not there."""
    return ApiError("NOT_FOUND", f'Repository "{repository.path}" was not found.')


def _named(path: str) -> Repository:
    _, project, _, location, _, name = path.split("/")
    return Repository(project, location, name)


def _file(repository: Repository) -> str:
    return f"repositories/{repository.project}/{repository.location}/{repository.name}.json"


def _known(body: Document, names: set[str]) -> Document:
    for name in body:
        if name not in names | _SHOWN:
            raise invalid(f'Invalid JSON payload received. Unknown name "{name}"', name)
    fields = {name: body[name] for name in sorted(names) if name in body}
    policies = fields.get("cleanupPolicies")
    if isinstance(policies, dict):
        fields["cleanupPolicies"] = {key: _canonical(policy) for key, policy in policies.items()}
    return fields


def _canonical(value: Any) -> Any:
    """A policy as Google shows it: gcloud sends `Keep`, `untagged` and `86400.0s`."""
    if not isinstance(value, dict):
        return value
    shown = {name: _canonical(item) for name, item in value.items()}
    for name in ("action", "tagState"):
        if isinstance(shown.get(name), str):
            shown[name] = shown[name].upper()
    for name in ("olderThan", "newerThan"):
        if name in shown:
            shown[name] = re.sub(r"\.0*s$", "s", str(shown[name]))
    return shown


def _check(fields: Document) -> None:
    policies = fields.get("cleanupPolicies") or {}
    if not isinstance(policies, dict):
        raise invalid("Expected an object.", "cleanupPolicies")
    for key, policy in policies.items():
        if not isinstance(policy, dict) or policy.get("id", key) != key:
            raise invalid("The key of a policy must be its id.", "cleanupPolicies")
        if policy.get("action") not in ("DELETE", "KEEP"):
            raise invalid("Expected DELETE or KEEP.", f"cleanupPolicies.{key}.action")
        if ("condition" in policy) == ("mostRecentVersions" in policy):
            raise invalid("Expected a condition or mostRecentVersions.", f"cleanupPolicies.{key}")
        if "mostRecentVersions" in policy and policy["action"] != "KEEP":
            raise invalid("mostRecentVersions only keeps.", f"cleanupPolicies.{key}.action")


def _camel(path: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), path)
