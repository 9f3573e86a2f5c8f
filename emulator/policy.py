"""The check of a new IAM policy that every API makes before it stores one.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/Policy.
"""

from __future__ import annotations

from typing import Any

from emulator.errors import ApiError, invalid

Document = dict[str, Any]

UNSET: Document = {"version": 1, "etag": "ACAB"}
"""The policy of a resource whose policy was never set."""


def sent_policy(body: Document, current: Document) -> Document:
    """Return the policy in a body of setIamPolicy.

    Args:
        body: The body.
        current: The resource's current policy.

    Raises:
        ApiError: INVALID_ARGUMENT; ABORTED if the policy's etag is not the current one.
    """
    policy = body.get("policy")
    if not isinstance(policy, dict):
        raise invalid("The policy is required.", "policy")
    if policy.get("etag") not in (None, "", current["etag"]):
        raise ApiError(
            "ABORTED",
            "There were concurrent policy changes. Please retry the whole read-modify-write "
            "with exponential backoff.",
        )
    return policy
