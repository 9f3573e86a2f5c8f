"""What Google and Sigstore are told about this repository's workflows at GitHub."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError

ISSUER = "https://token.actions.githubusercontent.com"
"""Who signs the identity tokens of jobs.

Source: https://docs.github.com/en/actions/reference/security/oidc
"""
FOLDER = ".github/workflows"
BRANCH = "refs/heads/main"
"""The only branch whose jobs get an identity, and whose images count."""
DELIVER, BUILD, DELIVER_TO = "deliver.yml", "build.yml", "deliver-to.yml"
"""The workflow of a merge, and the two that it calls."""
CALLED = f"./{FOLDER}/{DELIVER_TO}"
WATCH = "watch.yml"
"""The workflow that takes up rollouts on a schedule."""
DEPENDABOT = ".github/dependabot.yml"
"""The folders whose packages and base images Dependabot updates."""


def environments(root: Path) -> list[str]:
    """Return the environments that a merge delivers to, in order; none without deliver.yml."""
    path = f"{FOLDER}/{DELIVER}"
    try:
        jobs = YamlFile(root / path, path).data["jobs"].values()
        return [env for job in jobs if (env := environment_of(job))]
    except (UsageError, TypeError, KeyError, AttributeError):
        return []  # CI says what is wrong with a workflow


def without_updates(dependabot: str, folders: Iterable[str]) -> list[str]:
    """Return the folders whose base images Dependabot does not update.

    None, if it updates no base image at all, or if its file cannot be read.

    Args:
        dependabot: the text of its file. Source:
            https://docs.github.com/en/code-security/dependabot/working-with-dependabot/dependabot-options-reference
        folders: folders with a Dockerfile, relative to the repository's root.
    """
    try:
        updates = yaml.safe_load(dependabot)["updates"]
        named = [
            str(name).strip("/")
            for one in updates
            if one["package-ecosystem"] == "docker"
            for name in [*one.get("directories", ()), *filter(None, [one.get("directory")])]
        ]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return []
    return [one for one in folders if named and not any(fnmatchcase(one, name) for name in named)]


def environment_of(job: dict[str, Any]) -> str | None:
    """Return the environment that a job of deliver.yml delivers to; None for another job."""
    return job.get("with", {}).get("environment") if job.get("uses") == CALLED else None
