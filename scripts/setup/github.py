"""Read the repository's numbers at GitHub, and set the variables that the workflows read.

Everything goes through `gh`, with the user's own login, or is printed for pasting.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.errors import Failed, UsageError
from scripts.machine import git
from scripts.setup import gh
from scripts.setup.gh import Change
from scripts.setup.identity_provider import Repository
from scripts.template import record


def repository(
    root: Path, named: str | None, owner_id: int | None, repository_id: int | None
) -> Repository:
    """Find the repository that delivers; `gh` gives the numbers that are missing.

    Args:
        root: the clone.
        named: OWNER/NAME; None for the remote `origin`.
        owner_id: the owner's number at GitHub, if known.
        repository_id: the repository's number at GitHub, if known.

    Raises:
        UsageError: the repository or its numbers are unknown.
    """
    name = named or git.github_name(root) or ""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", name):
        problem = f"'{named}' is not OWNER/NAME" if named else "the remote origin is not at GitHub"
        raise UsageError(
            f"the repository that delivers is unknown: {problem}",
            "name it: --repository OWNER/NAME",
        )
    owner, _, short = name.partition("/")
    if owner_id is None or repository_id is None:
        document = _numbers(name)
        owner_id, repository_id = int(document["owner"]["id"]), int(document["id"])
    recorded = record.read(root)
    return Repository(
        owner=owner,
        owner_id=owner_id,
        name=short,
        repository_id=repository_id,
        self_hosted_runners=recorded is not None and recorded.self_hosted_runners,
    )


def _numbers(name: str) -> Any:
    hint = (
        "give them: --repository-id N --owner-id N, the fields id and owner.id of"
        f" https://api.github.com/repos/{name}"
    )
    if not gh.is_installed():
        raise UsageError(f"gh is not installed, so the numbers of {name} are unknown", hint)
    try:
        return gh.send("GET", f"repos/{name}")
    except Failed as error:
        raise UsageError(f"gh cannot read {name}: {error.message}", hint) from None


def template(root: Path) -> str:
    """Return the URL of the repository that this one was forked or copied from; "" if unknown."""
    name = git.origin(root).removeprefix("https://github.com/")
    found = _described(name) if name else {}
    made_from = found.get("template_repository") or found.get("parent") or {}
    return str(made_from.get("clone_url") or "")


def is_private(name: str) -> bool | None:
    """Return whether a repository is private; None if `gh` cannot tell."""
    found = _described(name).get("private")
    return found if isinstance(found, bool) else None


def _described(name: str) -> dict[str, Any]:
    """Return GitHub's description of a repository; an empty one if `gh` cannot read it.

    Source: https://docs.github.com/en/rest/repos/repos#get-a-repository
    """
    if not gh.is_installed():
        return {}
    try:
        found: dict[str, Any] = gh.send("GET", f"repos/{name}")
    except Failed:
        return {}
    return found


def paste(
    repository: Repository, env: str, shared: Mapping[str, str], own: Mapping[str, str]
) -> list[str]:
    """Return the commands that set all variables, for someone without `gh` here.

    Args:
        repository: at GitHub.
        env: the GitHub Environment.
        shared: the repository's variables.
        own: the GitHub Environment's variables.
    """
    return [
        *(_set(repository, name, value, "") for name, value in shared.items()),
        *(_set(repository, name, value, env) for name, value in own.items()),
    ]


def variables(
    repository: Repository, env: str, shared: Mapping[str, str], own: Mapping[str, str]
) -> list[Change]:
    """Return the changes that set the variables which lack or differ, as in `paste`.

    Source: https://docs.github.com/en/rest/actions/variables. Not `gh variable`, which older
    versions of gh lack, such as Debian's.

    Raises:
        Failed: gh cannot read the variables.
    """
    places = (
        (shared, "", f"repos/{repository.full_name}/actions/variables"),
        (own, env, f"repos/{repository.full_name}/environments/{quote(env, safe='')}/variables"),
    )
    made = []
    for wanted, where, path in places:
        found = _variables(path)
        for name, value in wanted.items():
            if found.get(name) == value:
                continue
            known = name in found
            made.append(
                Change(
                    does="set",
                    what=f"variable {name}" + (f" of environment {where}" if where else ""),
                    method="PATCH" if known else "POST",
                    path=f"{path}/{name}" if known else path,
                    body={"name": name, "value": value},
                    shown=_set(repository, name, value, where),
                )
            )
    return made


def _set(repository: Repository, name: str, value: str, env: str) -> str:
    words = ["gh", "variable", "set", name, f"--body={value}", f"--repo={repository.full_name}"]
    return shlex.join([*words, f"--env={env}"] if env else words)


def _variables(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for page in itertools.count(1):
        answer = gh.get(f"{path}?per_page=30&page={page}")
        if answer is None:  # the environment does not exist yet
            return found
        found.update((one["name"], one["value"]) for one in answer["variables"])
        if not answer["variables"] or len(found) >= answer["total_count"]:
            return found
    raise AssertionError("unreachable")
