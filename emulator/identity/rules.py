"""Rules for policies: members exist, the resource takes the roles, the domains are allowed.

The messages are Google's, as users of gcloud and Terraform quote them. An organization's policy is
one of `emulator.faults`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from emulator.errors import ApiError, invalid, precondition_failure
from emulator.faults.models import Faults
from emulator.faults.settings import DOMAINS
from emulator.identity.accounts import Accounts
from emulator.identity.custom_roles import CustomRoles
from emulator.identity.pools import Pools
from emulator.identity.roles import PERMISSIONS
from emulator.names import project_number
from emulator.permissions import PREFIXES, On
from emulator.policy import asked_permissions, bindings_of

Document = dict[str, Any]

_PUBLIC = ("allUsers", "allAuthenticatedUsers")
_MEMBER = re.compile(
    r"(user|serviceAccount|group|domain|principal|principalSet|deleted|project\w+):.+"
)
_POOL = re.compile(
    r"principal(?:Set)?://iam\.googleapis\.com/projects/(?P<project>[^/]+)/locations/global"
    r"/workloadIdentityPools/(?P<pool>[^/]+)/.+"
)


class PolicyRules:
    """Checks new policies, and permissions that a caller tests.

    `exists(kind, project, name)` is whether a repository or a secret exists.
    """

    def __init__(
        self,
        accounts: Accounts,
        pools: Pools,
        roles: CustomRoles,
        faults: Faults,
        exists: Callable[[On, str, str], bool],
    ) -> None:
        self._accounts = accounts
        self._pools = pools
        self._roles = roles
        self._faults = faults
        self._exists = exists

    def check_exists(self, on: On, project: str, name: str) -> None:
        """Raise ApiError NOT_FOUND if a resource with a policy does not exist.

        Args:
            on: The kind of the resource. A project always exists.
            project: The resource's project.
            name: The resource's name; of an account the e-mail.
        """
        if on is On.ACCOUNT:
            self._accounts.check_exists(name)
        elif on is On.SECRET and not self._exists(on, project, name):
            secret = f"projects/{project_number(project)}/secrets/{name}"
            raise ApiError("NOT_FOUND", f"Secret [{secret}] not found.")
        elif on is On.REPOSITORY and not self._exists(on, project, name):
            raise ApiError("NOT_FOUND", "Requested entity was not found.")

    def check_policy(self, on: On, resource: str, body: Document) -> None:
        """Raise ApiError for a policy that a kind of resource does not take."""
        for binding in bindings_of(body):
            self._check_role(on, binding["role"], resource)
            for member in binding["members"]:
                self._check_member(member, resource)

    def check_permissions(self, on: On, body: Document) -> None:
        """Raise ApiError INVALID_ARGUMENT for a permission that a kind of resource has not."""
        prefix = _prefix(on)
        for permission in asked_permissions(body):
            if permission not in PERMISSIONS or not permission.startswith(prefix):
                raise ApiError(
                    "INVALID_ARGUMENT", f"Permission {permission} is not valid for this resource."
                )

    def _check_role(self, on: On, role: str, resource: str) -> None:
        self._roles.check_exists(role, resource.partition("/")[2])
        prefix, held = _prefix(on), self._roles.permissions_of(role)
        if held and not any(permission.startswith(prefix) for permission in held):
            raise ApiError("INVALID_ARGUMENT", f"Role {role} is not supported for this resource.")

    def _check_member(self, member: str, resource: str) -> None:
        if member in _PUBLIC:
            if self._faults.is_active(DOMAINS):
                raise _not_permitted(member, resource)
            return
        if not _MEMBER.fullmatch(member):
            raise invalid(f"Invalid value '{member}': no member has this form.", "policy.bindings")
        kind, _, email = member.partition(":")
        if kind == "serviceAccount" and not self._accounts.exists(email):
            raise ApiError("INVALID_ARGUMENT", f"Service account {email} does not exist.")
        if (pool := _POOL.fullmatch(member)) and not self._pools.may_be_named(
            pool["project"], pool["pool"]
        ):
            name = f"projects/{pool['project']}/locations/global/workloadIdentityPools/"
            raise ApiError(
                "INVALID_ARGUMENT",
                f"Identity Pool does not exist ({name}{pool['pool']}). Please check that you "
                "specified a valid resource name as returned in the `name` attribute in the "
                "configuration API.",
            )


def _prefix(on: On) -> str:
    """Return how the permissions on a resource begin. A project takes those of all kinds."""
    return "" if on is On.PROJECT else PREFIXES[on]


def _not_permitted(member: str, resource: str) -> ApiError:
    return ApiError(
        "FAILED_PRECONDITION",
        "One or more users named in the policy do not belong to a permitted customer, perhaps due "
        "to an organization policy.",
        [
            precondition_failure(
                "constraints/iam.allowedPolicyMemberDomains",
                f"orgpolicy:{resource}?configvalue={member}",
                f"User {member} is not in permitted organization.",
            )
        ],
    )
