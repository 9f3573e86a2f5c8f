"""Protect the main branch with the ruleset in .github/rulesets/main.json.

The file has the format of GitHub's API and of GitHub's import. Rules are only added: stricter
values that others set stay.

Sources: https://docs.github.com/en/rest/repos/rules,
https://docs.github.com/en/rest/branches/branch-protection (the older kind of protection).
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scripts.config.workflows import BRANCH
from scripts.errors import UsageError
from scripts.setup import gh
from scripts.setup.gh import Change, GitHubError

FILE = ".github/rulesets/main.json"
GET_BACK = "take the last good one:"
_NAME = BRANCH.removeprefix("refs/heads/")
# For these, the lower or false value is the stricter one, or none is: what others set stays.
_KEPT = ("do_not_enforce_on_create", "allowed_merge_methods")
# https://docs.github.com/en/repositories/configuring-branches-and-merges-in-your-repository/managing-rulesets/about-rulesets
NO_PLAN = "GitHub has no rules for private repositories on the Free plan"
Document = dict[str, Any]


def declared(root: Path) -> Document | None:
    """Read the ruleset in the repository; None if it has none.

    Raises:
        UsageError: the file is not a ruleset.
    """
    try:
        document = json.loads((root / FILE).read_text(encoding="utf-8"))
        required_checks(document)
        document["conditions"]["ref_name"]["include"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{FILE} is not a ruleset of GitHub ({problem})", f"{GET_BACK} git log -p {FILE}"
        ) from None
    return dict(document)


def required_checks(ruleset: Document) -> set[str]:
    """Return the names of the checks that a ruleset requires."""
    rule = next(rule for rule in ruleset["rules"] if rule["type"] == "required_status_checks")
    return {check["context"] for check in rule["parameters"]["required_status_checks"]}


def changes(repository: str, root: Path) -> list[Change]:
    """Return the change that creates the ruleset, or adds what it lacks; none without the file.

    Raises:
        UsageError: the file is wrong.
        Failed: gh cannot read the rulesets.
    """
    wanted = declared(root)
    if wanted is None:
        return []
    path = f"repos/{repository}/rulesets"
    listed = gh.send("GET", f"{path}?includes_parents=false&per_page=100")
    same = [one for one in listed if (one["name"], one["target"]) == (wanted["name"], "branch")]
    if not same:
        return [
            Change(
                does="create",
                what=f"ruleset {wanted['name']}: only approved pull requests whose checks passed,"
                " no force push, no deletion",
                method="POST",
                path=path,
                body=wanted,
                shown=f"gh api --method=POST {path} --input={FILE}",
            )
        ]
    path = f"{path}/{same[0]['id']}"
    found = gh.send("GET", path)
    merged = merge(found, wanted)
    # Without the permission to see them, GitHub's answer has no key bypass_actors.
    differing = [key for key, value in merged.items() if found.get(key, value) != value]
    if not differing:
        return []
    return [
        Change(
            does="change",
            what=f"ruleset {wanted['name']}: {', '.join(differing)}",
            method="PUT",
            path=path,
            body=merged,
        )
    ]


def merge(found: Document, wanted: Document) -> Document:
    """Return the declared ruleset, with the stricter values of the existing one.

    No one may bypass it but the actors in the file.
    """
    include, exclude = (
        ((found.get("conditions") or {}).get("ref_name") or {}).get(key) or []
        for key in ("include", "exclude")
    )
    names = wanted["conditions"]["ref_name"]["include"]
    rules = {rule["type"]: rule for rule in found.get("rules") or []}
    for rule in wanted["rules"]:
        rules[rule["type"]] = _stricter(rules.get(rule["type"], {}), rule)
    return {
        **{key: wanted[key] for key in ("name", "target", "enforcement")},
        "bypass_actors": wanted.get("bypass_actors") or [],
        "conditions": {
            "ref_name": {
                "include": [*include, *(name for name in names if name not in include)],
                "exclude": [
                    one for one in exclude if not any(fnmatch.fnmatchcase(n, one) for n in names)
                ],
            }
        },
        "rules": [*rules.values()],
    }


def _stricter(found: Any, wanted: Any) -> Any:
    if isinstance(wanted, dict):
        found = found if isinstance(found, dict) else {}
        return {
            **wanted,
            **{
                key: _stricter(value, wanted[key]) if key in wanted and key not in _KEPT else value
                for key, value in found.items()
            },
        }
    if isinstance(wanted, list):
        names = {one.get("context") for one in wanted if isinstance(one, dict)}
        kept = found if isinstance(found, list) else []
        return [*(one for one in kept if one not in wanted and one.get("context") not in names),
                *wanted]  # fmt: skip
    if isinstance(wanted, (bool, int)) and isinstance(found, (bool, int)):
        return max(found, wanted)
    return wanted


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """What protects main, from its rulesets and its classic protection together.

    Attributes:
        kinds: the types of the rules that apply, as rulesets name them.
        approvals: how many approvals a pull request needs.
        checks: the checks that must pass.
        bypass: who may skip the rules.
        unread: why the classic protection is unknown; "" if it is known or not needed.
    """

    kinds: frozenset[str] = frozenset()
    approvals: int = 0
    checks: frozenset[str] = frozenset()
    bypass: tuple[str, ...] = ()
    unread: str = ""


def read(repository: str, wanted: Document) -> Protection:
    """Read what protects main.

    Args:
        repository: OWNER/NAME.
        wanted: the ruleset in the repository.

    Raises:
        GitHubError: GitHub's plan has no rules (`is_plan`), or this login may not read them.
        Failed: gh cannot ask.
    """
    rules = gh.send("GET", f"repos/{repository}/rules/branches/{_NAME}?per_page=100")
    parameters: dict[str, list[Document]] = {"pull_request": [{}], "required_status_checks": [{}]}
    for rule in rules:
        parameters.setdefault(rule["type"], []).append(rule.get("parameters") or {})
    found = Protection(
        kinds=frozenset(rule["type"] for rule in rules),
        approvals=max(
            int(one.get("required_approving_review_count") or 0)
            for one in parameters["pull_request"]
        ),
        checks=frozenset(
            check["context"]
            for one in parameters["required_status_checks"]
            for check in one.get("required_status_checks") or []
        ),
        bypass=tuple(_bypass(repository, rules, wanted.get("bypass_actors") or [])),
    )
    if not any(weaknesses(found, wanted)):
        return found
    try:
        classic = gh.send("GET", f"repos/{repository}/branches/{_NAME}/protection")
    except GitHubError as error:
        # GitHub says "Branch not protected" to those who may see it, and "Not Found" to others.
        if error.status == 404 and "not protected" in error.says.lower():
            return found
        return msgspec.structs.replace(found, unread=error.says)
    return _with_classic(found, classic)


def is_plan(error: GitHubError) -> bool:
    """Return whether GitHub refuses because the owner's plan lacks the feature."""
    return error.status == 403 and error.says.startswith("Upgrade to GitHub")


def weaknesses(found: Protection, wanted: Document) -> Iterator[str]:
    """Yield a sentence for each protection that main lacks."""
    if not found.approvals or "pull_request" not in found.kinds:
        yield f"{_NAME} can change without a pull request that someone else approved"
    if lacking := sorted(required_checks(wanted) - found.checks):
        yield f"{_NAME} can change although these checks did not pass: {', '.join(lacking)}"
    if "non_fast_forward" not in found.kinds:
        yield f"a force push can rewrite {_NAME}"
    if "deletion" not in found.kinds:
        yield f"{_NAME} can be deleted"


def _bypass(repository: str, rules: list[Document], allowed: list[Document]) -> Iterator[str]:
    """Yield who may skip the repository's rulesets, as far as this login may see it."""
    known = {(one["actor_type"], one.get("actor_id")) for one in allowed}
    own = {r["ruleset_id"] for r in rules if r.get("ruleset_source_type") == "Repository"}
    for number in sorted(own):
        ruleset = gh.get(f"repos/{repository}/rulesets/{number}") or {}
        for actor in ruleset.get("bypass_actors") or []:
            kind, which = actor["actor_type"], actor.get("actor_id")
            if (kind, which) not in known:
                yield f"{kind} {which}" if which else kind


def _with_classic(found: Protection, classic: Document) -> Protection:
    reviews = classic.get("required_pull_request_reviews")
    checks = classic.get("required_status_checks") or {}
    kinds = {
        "pull_request": reviews is not None,
        "non_fast_forward": not (classic.get("allow_force_pushes") or {}).get("enabled"),
        "deletion": not (classic.get("allow_deletions") or {}).get("enabled"),
    }
    binds_admins = (classic.get("enforce_admins") or {}).get("enabled")
    count = int((reviews or {}).get("required_approving_review_count") or 0)
    return Protection(
        kinds=found.kinds | {kind for kind, holds in kinds.items() if holds},
        approvals=max(found.approvals, count),
        checks=found.checks | set(checks.get("contexts") or []),
        bypass=found.bypass if binds_admins else (*found.bypass, "administrators"),
    )
