"""What may stand in a policy: members that exist, roles that the resource takes, allowed domains.

The messages are Google's as users of gcloud and Terraform quote them; an organisation's policy is
one of `emulator.faults`.
"""

from __future__ import annotations

import re
from typing import Any

from emulator.errors import ApiError, invalid
from emulator.faults import DOMAINS, Faults
from emulator.identity.accounts import Accounts
from emulator.identity.federation import Federation
from emulator.identity.roles import PERMISSIONS, ROLES
from emulator.routes import PREFIXES, On

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
    """Checks policies that are to be set, and permissions that are asked about."""

    def __init__(self, accounts: Accounts, federation: Federation, faults: Faults) -> None:
        self._accounts = accounts
        self._federation = federation
        self._faults = faults

    def check_policy(self, on: On, resource: str, body: Document) -> None:
        """Raise ApiError for what a kind of resource does not take."""
        policy = body.get("policy")
        bindings = policy.get("bindings") if isinstance(policy, dict) else None
        for binding in bindings if isinstance(bindings, list) else []:
            if isinstance(binding, dict) and binding.get("members"):
                _check_role(on, str(binding.get("role")))
                for member in binding["members"]:
                    self._check_member(str(member), resource)

    def check_permissions(self, on: On, body: Document) -> None:
        """Raise INVALID_ARGUMENT for a permission that a kind of resource does not know."""
        prefix = _prefix(on)
        for permission in body.get("permissions") or []:
            if permission not in PERMISSIONS or not permission.startswith(prefix):
                raise ApiError(
                    "INVALID_ARGUMENT", f"Permission {permission} is not valid for this resource."
                )

    def _check_member(self, member: str, resource: str) -> None:
        if member in _PUBLIC:
            if self._faults.get(DOMAINS):
                raise _not_permitted(member, resource)
            return
        if not _MEMBER.fullmatch(member):
            raise invalid(f"Invalid value '{member}': no member has this form.", "policy.bindings")
        kind, _, email = member.partition(":")
        if kind == "serviceAccount" and not self._accounts.exists(email):
            raise ApiError("INVALID_ARGUMENT", f"Service account {email} does not exist.")
        if (pool := _POOL.fullmatch(member)) and not self._federation.is_there(
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
    """How the permissions on a kind of resource begin: a project takes those of all kinds."""
    return "" if on is On.PROJECT else PREFIXES[on]


def _check_role(on: On, role: str) -> None:
    prefix = _prefix(on)
    held = ROLES.get(role)
    if held is not None and not any(permission.startswith(prefix) for permission in held):
        raise ApiError("INVALID_ARGUMENT", f"Role {role} is not supported for this resource.")


def _not_permitted(member: str, resource: str) -> ApiError:
    return ApiError(
        "FAILED_PRECONDITION",
        "One or more users named in the policy do not belong to a permitted customer, perhaps due "
        "to an organization policy.",
        [
            {
                "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
                "violations": [
                    {
                        "type": "constraints/iam.allowedPolicyMemberDomains",
                        "subject": f"orgpolicy:{resource}?configvalue={member}",
                        "description": f"User {member} is not in permitted organization.",
                    }
                ],
            }
        ],
    )
