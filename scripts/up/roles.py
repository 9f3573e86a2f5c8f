"""Give roles in the local environment's project, as its owner."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.cloud.local_identity import OWNER, LocalIdentity, post
from scripts.config import pipelines
from scripts.config.running import Running
from scripts.errors import Failed, UsageError

_GRANT = re.compile(r"(?P<member>(user|serviceAccount|group):[^=\s]+)=(?P<role>[\w./]+)")


def grant(found: Running, root: Path, grants: Sequence[str]) -> int:
    """Add bindings to the project's policy; return the exit code.

    Args:
        found: the local Cloud Run.
        root: its checkout.
        grants: each is MEMBER=ROLE.

    Raises:
        UsageError: one is not written so.
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
    policy = _post(found, f"/v1/projects/{project}:getIamPolicy", {})
    policy["bindings"] = [*policy.get("bindings", []), *bindings]
    _post(found, f"/v1/projects/{project}:setIamPolicy", {"policy": policy})
    for text in grants:
        member, _, role = text.partition("=")
        print(f"{member} has {role} in {project}", file=sys.stderr)
    return 0


def _post(found: Running, path: str, body: dict[str, Any]) -> dict[str, Any]:
    bearer = {"Authorization": f"Bearer {LocalIdentity(found, OWNER).token()}"}
    answer = post(found, path, body, bearer)
    if not answer.ok:
        raise Failed("no role was given", evidence=[answer.json()["error"]["message"]])
    given: dict[str, Any] = answer.json()
    return given
