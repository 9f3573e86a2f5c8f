"""Read the repository's numbers at GitHub, and set the variables that the workflows read.

Everything goes through `gh`, with the user's own login, or is printed for pasting.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.errors import Failed, UsageError
from scripts.machine import git
from scripts.setup.identity_provider import Repository


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
    return Repository(owner=owner, owner_id=owner_id, name=short, repository_id=repository_id)


def _numbers(name: str) -> Any:
    hint = (
        "give them: --repository-id N --owner-id N, the fields id and owner.id of"
        f" https://api.github.com/repos/{name}"
    )
    if not has_gh():
        raise UsageError(f"gh is not installed, so the numbers of {name} are unknown", hint)
    ended = _gh("api", f"repos/{name}")
    if ended.returncode != 0:
        raise UsageError(f"gh cannot read {name}: {_last(ended)}", hint)
    return json.loads(ended.stdout)


def has_gh() -> bool:
    """Return whether GitHub's command line is installed."""
    return shutil.which("gh") is not None


def template(root: Path) -> str:
    """Return the URL of the repository that this one was forked or copied from; "" if unknown."""
    name = git.origin(root).removeprefix("https://github.com/")
    if not name or not has_gh():
        return ""
    # Source: https://docs.github.com/en/rest/repos/repos#get-a-repository
    wanted = "(.template_repository // .parent).clone_url // empty"
    found = _gh("api", f"repos/{name}", "--jq", wanted)
    return found.stdout.strip() if found.returncode == 0 else ""


def is_private(name: str) -> bool | None:
    """Return whether a repository is private; None if `gh` cannot tell.

    Source: https://docs.github.com/en/rest/repos/repos#get-a-repository
    """
    if not has_gh():
        return None
    found = _gh("api", f"repos/{name}", "--jq", ".private")
    return {"true": True, "false": False}.get(found.stdout.strip())


def commands(
    repository: Repository, env: str, shared: Mapping[str, str], own: Mapping[str, str]
) -> list[list[str]]:
    """Return the commands that set the variables.

    Args:
        repository: at GitHub.
        env: the GitHub Environment.
        shared: the repository's variables.
        own: the GitHub Environment's variables.
    """
    name = f"{repository.owner}/{repository.name}"

    def set_(variable: str, value: str, *more: str) -> list[str]:
        return ["gh", "variable", "set", variable, f"--body={value}", f"--repo={name}", *more]

    return [
        *(set_(variable, value) for variable, value in shared.items()),
        *(set_(variable, value, f"--env={env}") for variable, value in own.items()),
    ]


def missing(
    repository: Repository, env: str, shared: Mapping[str, str], own: Mapping[str, str]
) -> list[list[str]]:
    """Return the commands that are still needed, as `commands` does.

    Raises:
        Failed: gh cannot read the repository's variables.
    """
    name = f"{repository.owner}/{repository.name}"
    needed = []
    if _gh("api", f"repos/{name}/environments/{env}").returncode != 0:
        # Only if it does not exist: this call would remove the rules of an existing one.
        needed.append(["gh", "api", "--method=PUT", f"repos/{name}/environments/{env}", "--silent"])
    current = _variables(name)
    current_own = {} if needed else _variables(name, f"--env={env}")
    return [
        *needed,
        *commands(
            repository,
            env,
            {k: v for k, v in shared.items() if current.get(k) != v},
            {k: v for k, v in own.items() if current_own.get(k) != v},
        ),
    ]


def run(command: list[str]) -> None:
    """Run one of the commands.

    Raises:
        Failed: it fails.
    """
    ended = _gh(*command[1:])
    if ended.returncode != 0:
        raise Failed(f"{' '.join(command[:4])}: {_last(ended)}", "gh auth status")


def _variables(name: str, *more: str) -> dict[str, str]:
    ended = _gh("variable", "list", f"--repo={name}", "--json=name,value", *more)
    if ended.returncode != 0:
        raise Failed(f"gh cannot read the variables of {name}: {_last(ended)}", "gh auth status")
    return {entry["name"]: entry["value"] for entry in json.loads(ended.stdout or "[]")}


def _gh(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["gh", *words], capture_output=True, text=True, check=False, timeout=60)


def _last(ended: subprocess.CompletedProcess[str]) -> str:
    lines = ended.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {ended.returncode}"
