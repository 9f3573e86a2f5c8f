"""Which repository at GitHub this is, by the numbers that nobody can take over.

Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/variables (in a job) and
https://docs.github.com/en/rest/repos/repos#get-a-repository (anywhere else).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import requests

from scripts.core import git
from scripts.core.errors import UsageError
from scripts.core.federation import Repository

_API = "https://api.github.com"


def repository(root: Path) -> Repository:
    """This clone's repository: from the job's variables, else asked of GitHub by its origin.

    `gh` asks where it is installed, which a private repository needs.

    Raises:
        UsageError: it is not known, or GitHub does not tell.
    """
    named = {name: os.environ.get(f"GITHUB_{name}", "") for name in
             ("REPOSITORY", "REPOSITORY_ID", "REPOSITORY_OWNER_ID")}  # fmt: skip
    if all(named.values()):
        owner, _, name = named["REPOSITORY"].partition("/")
        return Repository(
            owner=owner,
            owner_id=int(named["REPOSITORY_OWNER_ID"]),
            name=name,
            repository_id=int(named["REPOSITORY_ID"]),
        )
    url = git.origin(root)
    found = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", url)
    if found is None:
        raise UsageError(
            f"which repository at GitHub? origin is {url or 'not set'}",
            "git remote add origin https://github.com/OWNER/NAME",
        )
    answer = _asked(f"repos/{found[1]}/{found[2]}")
    try:
        return Repository(
            owner=answer["owner"]["login"],
            owner_id=int(answer["owner"]["id"]),
            name=answer["name"],
            repository_id=int(answer["id"]),
        )
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"GitHub's answer about {url} holds no numbers") from None


def _asked(path: str) -> dict[str, Any]:
    api = os.environ.get("GITHUB_API_URL", _API)
    if shutil.which("gh") and api == _API:
        done = subprocess.run(["gh", "api", path], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer
    try:
        response = requests.get(
            f"{api}/{path}", headers={"User-Agent": "shipway"}, timeout=10, allow_redirects=True
        )
        answer = response.json()
    except (requests.exceptions.RequestException, ValueError) as error:
        raise UsageError(f"{api} does not answer: {type(error).__name__}") from None
    if not response.ok:
        raise UsageError(
            f"GitHub does not show {path}: {response.status_code} {answer.get('message', '')}",
            "a private repository is asked about with gh: gh auth login",
        )
    return answer
