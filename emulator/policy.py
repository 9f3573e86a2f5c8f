"""The check of a new IAM policy that every API makes before it stores one.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/Policy.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import msgspec

from emulator.errors import ApiError, invalid
from emulator.fields import typed

Document = dict[str, Any]

UNSET: Document = {"version": 1, "etag": "ACAB"}
"""The policy of a resource whose policy was never set."""


class _Binding(TypedDict, total=False):
    role: str
    members: list[str]
    condition: dict[str, str]


class _Policy(TypedDict, total=False):
    version: Annotated[int, msgspec.Meta(ge=0, le=3)]
    etag: str
    bindings: list[_Binding]


class _SetPolicy(TypedDict, total=False):
    policy: _Policy


class _TestPermissions(TypedDict, total=False):
    permissions: list[str]


def asked_permissions(body: Document) -> list[str]:
    """Return the permissions in a body of testIamPermissions; raise ApiError INVALID_ARGUMENT."""
    permissions: list[str] = typed(body, _TestPermissions).get("permissions", [])
    return permissions


def bindings_of(body: Document) -> list[Document]:
    """Return the bindings in a body of setIamPolicy; raise ApiError INVALID_ARGUMENT."""
    bindings: list[Document] = typed(body, _SetPolicy).get("policy", {}).get("bindings", [])
    for index, binding in enumerate(bindings):
        if "role" not in binding:
            raise invalid("The role is required.", f"policy.bindings[{index}].role")
    return [binding for binding in bindings if binding.get("members")]


def sent_policy(body: Document, current: Document) -> Document:
    """Return the policy in a body of setIamPolicy, without bindings that have no member.

    Args:
        body: The body.
        current: The resource's current policy.

    Raises:
        ApiError: INVALID_ARGUMENT; ABORTED if the policy's etag is not the current one.
    """
    policy: Document | None = typed(body, _SetPolicy).get("policy")
    if policy is None:
        raise invalid("The policy is required.", "policy")
    if policy.get("etag") not in (None, "", current["etag"]):
        raise ApiError(
            "ABORTED",
            "There were concurrent policy changes. Please retry the whole read-modify-write "
            "with exponential backoff.",
        )
    return {**policy, "bindings": bindings_of(body)}
