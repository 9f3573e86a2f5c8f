"""What Google and Sigstore are told about this repository's workflows at GitHub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def environments(root: Path) -> list[str]:
    """Return the environments that a merge delivers to, in order; none without deliver.yml."""
    path = f"{FOLDER}/{DELIVER}"
    try:
        jobs = YamlFile(root / path, path).data["jobs"].values()
        return [env for job in jobs if (env := environment_of(job))]
    except (UsageError, TypeError, KeyError, AttributeError):
        return []  # CI says what is wrong with a workflow


def environment_of(job: dict[str, Any]) -> str | None:
    """Return the environment that a job of deliver.yml delivers to; None for another job."""
    return job.get("with", {}).get("environment") if job.get("uses") == CALLED else None
