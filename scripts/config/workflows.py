"""What Google and Sigstore are told about this repository's workflows at GitHub."""

from __future__ import annotations

ISSUER = "https://token.actions.githubusercontent.com"
"""Who signs the identity tokens of jobs.

Source: https://docs.github.com/en/actions/reference/security/oidc
"""
FOLDER = ".github/workflows"
BRANCH = "refs/heads/main"
"""The only branch whose jobs get an identity, and whose images count."""
DELIVER, BUILD, DELIVER_TO = "deliver.yml", "build.yml", "deliver-to.yml"
"""The workflow of a merge, and the two that it calls."""
WATCH = "watch.yml"
"""The workflow that takes up rollouts on a schedule."""
