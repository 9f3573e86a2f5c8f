"""The clean-up policies of repositories: stored and returned, but never applied.

Source: the discovery document artifactregistry.v1.
"""

from __future__ import annotations

import re
from typing import Any

from emulator.errors import invalid

Document = dict[str, Any]


def canonical(value: Any) -> Any:
    """Return a policy as Google shows it: gcloud sends `Keep`, `untagged` and `86400.0s`."""
    if not isinstance(value, dict):
        return value
    shown = {name: canonical(item) for name, item in value.items()}
    for name in ("action", "tagState"):
        if isinstance(shown.get(name), str):
            shown[name] = shown[name].upper()
    for name in ("olderThan", "newerThan"):
        if name in shown:
            shown[name] = re.sub(r"\.0*s$", "s", str(shown[name]))
    return shown


def check(policies: dict[str, Document]) -> None:
    """Raise a 400 ApiError for invalid policies."""
    for key, policy in policies.items():
        if policy.get("id", key) != key:
            raise invalid("The key of a policy must be its id.", "cleanupPolicies")
        if policy.get("action") not in ("DELETE", "KEEP"):
            raise invalid("Expected DELETE or KEEP.", f"cleanupPolicies.{key}.action")
        if ("condition" in policy) == ("mostRecentVersions" in policy):
            raise invalid("Expected a condition or mostRecentVersions.", f"cleanupPolicies.{key}")
        if "mostRecentVersions" in policy and policy["action"] != "KEEP":
            raise invalid("mostRecentVersions only keeps.", f"cleanupPolicies.{key}.action")
