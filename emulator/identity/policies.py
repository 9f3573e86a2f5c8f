"""IAM policies of projects, accounts, repositories, secrets and buckets, and what one grants.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/Policy. Conditional role bindings are
stored, but grant nothing here. The policies of services are stored with the services.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

from emulator import clock
from emulator.hashes import hex_of
from emulator.identity.principals import Principal
from emulator.names import project_number
from emulator.policy import UNSET, sent_policy
from emulator.store import Store

Document = dict[str, Any]

# The owner of a project whose policy was never set.
OWNER = "user:owner@localhost"


class Policies:
    """The policies of everything but services. The functions below name the resources."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Document] = {}
        for entry in store.documents("policies"):
            self._known[entry["resource"]] = entry["policy"]

    def get(self, resource: str) -> Document:
        """Return the policy of a resource; the default one if none was set."""
        owned = resource.startswith("projects/") and resource.count("/") == 1
        owner = {"bindings": [{"role": "roles/owner", "members": [OWNER]}]} if owned else {}
        return self._known.get(resource, {**UNSET, **owner})

    def set(self, resource: str, body: Document) -> Document:
        """Replace a policy.

        Args:
            resource: The resource.
            body: The body of setIamPolicy.

        Returns:
            The policy as it is stored.

        Raises:
            ApiError: INVALID_ARGUMENT; ABORTED if the policy's etag is not the current one.
        """
        wanted = sent_policy(body, self.get(resource))
        stored = {
            "version": wanted.get("version", 1),
            "etag": clock.next_version(),
            "bindings": wanted["bindings"],
        }
        self._store.write(_file(resource), {"resource": resource, "policy": stored})
        self._known[resource] = stored
        return stored

    def own(self, project_name: str, member: str) -> None:
        """Make `member` the only owner of a project."""
        binding = {"role": "roles/owner", "members": [member]}
        self.set(project(project_name), {"policy": {"bindings": [binding]}})

    def forget(self, resource: str) -> None:
        """Drop the policy of a resource that was deleted."""
        if self._known.pop(resource, None) is not None:
            self._store.delete(_file(resource))


def project(name: str) -> str:
    """Return the resource name of a project, whose `name` is its ID or its number."""
    return f"projects/{project_number(name)}"


def account(email: str) -> str:
    """Return the resource name of a service account."""
    return f"serviceAccounts/{email}"


def repository(project_name: str, name: str) -> str:
    """Return the resource name of a repository. Its location is ignored, as by the registry."""
    return f"{project(project_name)}/repositories/{name}"


def secret(project_name: str, name: str) -> str:
    """Return the resource name of a secret."""
    return f"{project(project_name)}/secrets/{name}"


def bucket(name: str) -> str:
    """Return the resource name of a bucket of Cloud Storage."""
    return f"buckets/{name}"


def grants(
    policies: Iterable[Document],
    principal: Principal,
    permission: str,
    permissions_of: Callable[[str], Container[str]],
) -> bool:
    """Return whether one of the policies grants a principal a permission.

    Args:
        policies: The policies.
        principal: The caller.
        permission: The permission.
        permissions_of: A role -> its permissions.
    """
    return any(
        permission in permissions_of(binding["role"])
        and any(principal.is_member(member) for member in binding.get("members", ()))
        for policy in policies
        for binding in policy.get("bindings", ())
        if "condition" not in binding
    )


def _file(resource: str) -> str:
    return f"policies/{hex_of(resource)}.json"
