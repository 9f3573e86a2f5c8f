"""Protect a GitHub Environment: who may deploy to it, from which branch, after whose approval.

Rules are only added. A PUT replaces all rules of an environment, so each one is sent again.
Reviewers, wait timers and branches that others added stay.

Sources: https://docs.github.com/en/rest/deployments/environments and
https://docs.github.com/en/rest/deployments/branch-policies. `can_admins_bypass` is in GitHub's
answers and is what other clients send, such as Terraform's provider, but it is not documented.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from scripts.config.pipelines import Pipeline
from scripts.config.workflows import BRANCH
from scripts.errors import UsageError
from scripts.setup import gh
from scripts.setup.gh import Change

# GitHub accepts at most six reviewers for an environment.
_MOST_REVIEWERS = 6
# https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments
NO_PLAN = (
    "for private repositories, GitHub has environments on the plans Pro, Team and Enterprise, and"
    " required reviewers on Enterprise only"
)
_MAIN = BRANCH.removeprefix("refs/heads/")


class Reviewer(msgspec.Struct, frozen=True, kw_only=True):
    """A user or team whose approval lets a job start; `id` is its number at GitHub."""

    type: Literal["User", "Team"]
    id: int
    name: str


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a GitHub Environment.

    Attributes:
        exists: whether the environment exists.
        wait: minutes that each job waits.
        reviewers: one of them must approve each job; no one must, if there are none.
        prevents_self_review: whether the user who started a run may not approve its jobs.
        admins_bypass: whether administrators of the repository may skip the rules.
        branches: which branches may deploy.
        named: the branches' name patterns, if `branches` is "named".
    """

    exists: bool = True
    wait: int = 0
    reviewers: tuple[Reviewer, ...] = ()
    prevents_self_review: bool = False
    admins_bypass: bool = True
    branches: Literal["any", "protected", "named"] = "any"
    named: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """What may deploy besides main."""
        return [name for name in self.named if name != _MAIN]


def is_guarded(declared: Sequence[Pipeline]) -> bool:
    """Return whether an environment needs an approval: production, or a file says `confirm`."""
    return any(p.env == "production" or p.environment.confirm for p in declared)


def reviewer(name: str) -> Reviewer:
    """Look up a user, or a team that is named ORGANIZATION/TEAM.

    Raises:
        UsageError: GitHub does not know it, or does not show it to this login.
        Failed: gh cannot ask.
    """
    parts = [quote(part, safe="") for part in name.split("/", 1)]
    is_team = len(parts) == 2
    path = f"orgs/{parts[0]}/teams/{parts[1]}" if is_team else f"users/{parts[0]}"
    # With an empty part, the path is that of a list.
    found = gh.get(path) if all(parts) else None
    if found is None or (not is_team and found.get("type") != "User"):
        raise UsageError(
            f"--reviewer {name}: GitHub shows no such {'team' if is_team else 'user'}",
            "name a user, or a team as ORGANIZATION/TEAM (which gh auth refresh -s read:org shows)",
        )
    return Reviewer(type="Team" if is_team else "User", id=int(found["id"]), name=name)


def read(repository: str, env: str) -> Rules:
    """Read the rules of an environment.

    Raises:
        Failed: gh cannot read them.
    """
    path = _path(repository, env)
    found = gh.get(path)
    if found is None:
        return Rules(exists=False)
    policy = found.get("deployment_branch_policy") or {}
    rules = {rule["type"]: rule for rule in found.get("protection_rules") or []}
    required = rules.get("required_reviewers") or {}
    named: list[Any] = []
    if policy.get("custom_branch_policies"):
        answer = gh.get(f"{path}/deployment-branch-policies?per_page=100") or {}
        named = answer.get("branch_policies") or []
    return Rules(
        wait=int((rules.get("wait_timer") or {}).get("wait_timer") or 0),
        reviewers=tuple(
            Reviewer(
                type=one["type"],
                id=int(one["reviewer"]["id"]),
                name=str(one["reviewer"].get("login") or one["reviewer"].get("slug")),
            )
            for one in required.get("reviewers") or []
        ),
        prevents_self_review=bool(required.get("prevent_self_review")),
        admins_bypass=bool(found.get("can_admins_bypass", True)),
        branches="named"
        if policy.get("custom_branch_policies")
        else "protected"
        if policy.get("protected_branches")
        else "any",
        named=tuple(
            one["name"] if one.get("type", "branch") == "branch" else f"tag {one['name']}"
            for one in named
        ),
    )


def changes(
    repository: str, env: str, found: Rules, reviewers: Sequence[Reviewer], *, guarded: bool
) -> list[Change]:
    """Return the changes that add what an environment lacks.

    The branch is named, instead of GitHub's choice "protected branches only": that one admits
    every branch as long as no branch has a classic protection rule, and main has a ruleset.

    Args:
        repository: OWNER/NAME.
        env: the environment.
        found: its rules.
        reviewers: more reviewers.
        guarded: whether the environment needs an approval.

    Raises:
        UsageError: there would be too many reviewers.
    """
    path = _path(repository, env)
    made = []
    named = msgspec.structs.replace(found, exists=True, branches="named")
    if not found.exists or found.branches != "named":
        before = ", instead of every protected branch" if found.branches == "protected" else ""
        made.append(
            Change(
                does="change" if found.exists else "create",
                what=f"environment {env}: only named branches may deploy{before}",
                method="PUT",
                path=path,
                body=_body(named),
            )
        )
    if _MAIN not in found.named:
        made.append(
            Change(
                does="change",
                what=f"environment {env}: {_MAIN} may deploy",
                method="POST",
                path=f"{path}/deployment-branch-policies",
                body={"name": _MAIN, "type": "branch"},
            )
        )
    known = {(one.type, one.id) for one in found.reviewers}
    new = tuple(one for one in dict.fromkeys(reviewers) if (one.type, one.id) not in known)
    all_of_them = (*found.reviewers, *new)
    if len(all_of_them) > _MOST_REVIEWERS:
        raise UsageError(
            f"{env} would have {len(all_of_them)} reviewers, and GitHub allows {_MOST_REVIEWERS}",
            "name a team: --reviewer ORGANIZATION/TEAM",
        )
    is_safe = found.prevents_self_review and not found.admins_bypass
    if all_of_them and (new or (guarded and not is_safe)):
        wanted = msgspec.structs.replace(
            named, reviewers=all_of_them, prevents_self_review=True, admins_bypass=False
        )
        who = ", ".join(one.name for one in all_of_them)
        made.append(
            Change(
                does="change",
                what=f"environment {env}: needs an approval by {who}; no approval of one's own run,"
                " no bypass",
                method="PUT",
                path=path,
                body=_body(wanted),
            )
        )
    return made


def weaknesses(env: str, found: Rules, *, guarded: bool) -> Iterator[str]:
    """Yield a sentence for each protection that an environment lacks."""
    if not found.exists:
        yield f"the GitHub Environment {env} does not exist: the first run creates it without rules"
        return
    if found.branches == "any":
        yield f"every branch may deploy to {env}"
    elif found.branches == "protected":
        yield f"every protected branch may deploy to {env}, or every branch if none is protected"
    elif _MAIN not in found.named:
        yield f"{_MAIN} may not deploy to {env}"
    if not guarded:
        return
    if not found.reviewers:
        yield f"no one must approve a job of {env}"
        return
    if not found.prevents_self_review:
        yield f"the user who starts a run may approve its job in {env}"
    if found.admins_bypass:
        yield f"administrators may skip the approval of {env}"


def _path(repository: str, env: str) -> str:
    return f"repos/{repository}/environments/{quote(env, safe='')}"


def _body(rules: Rules) -> dict[str, Any]:
    """Return the body of a PUT.

    Rules that have GitHub's default are left out: in private repositories on the plans Pro and
    Team, GitHub refuses every key but the first.
    https://github.com/google/go-github/blob/master/github/repos_environments.go
    """
    body: dict[str, Any] = {
        "deployment_branch_policy": {
            "protected_branches": rules.branches == "protected",
            "custom_branch_policies": rules.branches == "named",
        }
    }
    if rules.wait:
        body["wait_timer"] = rules.wait
    if rules.reviewers:
        body["reviewers"] = [{"type": one.type, "id": one.id} for one in rules.reviewers]
        body["prevent_self_review"] = rules.prevents_self_review
    if not rules.admins_bypass:
        body["can_admins_bypass"] = False
    return body
