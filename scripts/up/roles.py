"""Give roles in the local environment's project, as its owner."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.cloud.local_identity import OWNER, LocalIdentity, send
from scripts.config import pipelines
from scripts.config.running import Running
from scripts.errors import Failed, UsageError, did_you_mean

_GRANT = re.compile(r"(?P<member>(user|serviceAccount|group):[^=\s]+)=(?P<role>[\w./]+)")


def grant(found: Running, root: Path, grants: Sequence[str]) -> int:
    """Add bindings to the project's policy; return the exit code.

    Args:
        found: the local Cloud Run.
        root: its checkout.
        grants: each is MEMBER=ROLE.

    Raises:
        UsageError: one is not written so, or names a role that does not exist. Nothing changed.
        Failed: the local Cloud Run refuses one; nothing changed.
    """
    bindings = []
    for text in grants:
        if not (match := _GRANT.fullmatch(text)):
            raise UsageError(
                f"--grant {text}: not MEMBER=ROLE", "such as user:me@example.com=roles/run.admin"
            )
        bindings.append({"role": match["role"], "members": [match["member"]]})
    name = next(iter(pipelines.having(root, pipelines.DEFAULT_ENV)), None)
    project = pipelines.load(root, name, pipelines.DEFAULT_ENV).environment.project
    _check_known(found, project, [str(one["role"]) for one in bindings])
    policy = _asked(found, "POST", f"/v1/projects/{project}:getIamPolicy")
    policy["bindings"] = [*policy.get("bindings", []), *bindings]
    _asked(found, "POST", f"/v1/projects/{project}:setIamPolicy", {"policy": policy})
    for text in grants:
        member, _, role = text.partition("=")
        print(f"{member} has {role} in {project}", file=sys.stderr)
    return 0


def _check_known(found: Running, project: str, roles: Sequence[str]) -> None:
    """Check that roles exist: at the local Cloud Run, an unknown one would allow nothing."""
    known = [
        str(one["name"])
        for place in ("", f"projects/{project}/")
        for one in _asked(found, "GET", f"/v1/{place}roles?pageSize=1000").get("roles", [])
    ]
    for role in roles:
        if role not in known:
            raise UsageError(
                f"--grant: the local Cloud Run knows no role {role}; nothing changed",
                did_you_mean(role, known, "the roles it knows"),
            )


def _asked(
    found: Running, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    bearer = {"Authorization": f"Bearer {LocalIdentity(found, OWNER).token()}"}
    answer = send(found, method, path, body, bearer)
    if not answer.ok:
        raise Failed("no role was given", evidence=[answer.json()["error"]["message"]])
    given: dict[str, Any] = answer.json()
    return given
