"""An OIDC issuer like that of GitHub Actions: jobs, their claims, and their tokens.

Source: https://docs.github.com/en/actions/reference/security/oidc (claims, subject, request URL).
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from pathlib import Path
from typing import Any

from emulator.errors import ApiError, invalid
from emulator.hashes import hex_of, number_of
from emulator.identity.keys import ALGORITHM, SigningKey

PATH = "/_github"

# GitHub's tokens are valid for five minutes.
_SECONDS = 300
_JOB_SECONDS = 6 * 3600
_CLAIMS = (
    "actor", "actor_id", "base_ref", "check_run_id", "enterprise", "enterprise_id", "environment",
    "environment_node_id", "event_name", "head_ref", "job_workflow_ref", "job_workflow_sha", "ref",
    "ref_protected", "ref_type", "repository", "repository_id", "repository_owner",
    "repository_owner_id", "repository_visibility", "run_attempt", "run_id", "run_number",
    "runner_environment", "sha", "workflow", "workflow_ref", "workflow_sha",
)  # fmt: skip


class Issuer:
    """The issuer at `url`. Jobs ask for tokens; each job has the claims that its tokens carry."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = f"{url}{PATH}"
        self.key = SigningKey(folder / "github.pem")
        # By the hash of their request token. Only in memory: a job does not outlive its runner.
        self._jobs: dict[str, tuple[dict[str, Any], float]] = {}

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document (OpenID Connect Discovery 1.0), with GitHub's fields."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/.well-known/jwks",
            "subject_types_supported": ["public", "pairwise"],
            "response_types_supported": ["id_token"],
            "claims_supported": ["sub", "aud", "exp", "iat", "iss", "jti", "nbf", *_CLAIMS],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "scopes_supported": ["openid"],
        }

    def start_job(self, chosen: dict[str, Any]) -> dict[str, str]:
        """Start a job.

        Args:
            chosen: Claims that take the place of the defaults: any, also `exp`, `iss` and `aud`,
                which makes tokens that a provider refuses. A claim of null is left out.

        Returns:
            The environment variables by which the job asks for tokens.

        Raises:
            ApiError: INVALID_ARGUMENT; the repository is missing.
        """
        repository = chosen.get("repository")
        if not isinstance(repository, str) or repository.count("/") != 1:
            raise invalid("Expected OWNER/NAME.", "repository")
        token = secrets.token_urlsafe(48)
        self._jobs[hex_of(token)] = (_claims(repository, chosen), time.time() + _JOB_SECONDS)
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token,
        }

    def token(self, request_token: str, audience: str | None) -> str:
        """Return a signed token for a job; raises ApiError UNAUTHENTICATED.

        Args:
            request_token: The job's request token.
            audience: The token's audience; by default the repository owner's URL, as at GitHub.
        """
        claims, until = self._jobs.get(hex_of(request_token), ({}, 0.0))
        now = int(time.time())
        if until <= now:
            raise ApiError("UNAUTHENTICATED", "The request token is not one of a running job.")
        own = {
            "jti": str(uuid.uuid4()),
            "aud": audience or f"https://github.com/{claims['repository_owner']}",
            "iss": self.url,
            "nbf": now - _SECONDS,
            "iat": now,
            "exp": now + _SECONDS,
        }
        made = {**own, **claims}
        return self.key.sign({name: value for name, value in made.items() if value is not None})


def _claims(repository: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return a job's claims: the chosen ones, and those that follow from them."""
    owner = repository.partition("/")[0]
    ref = str(chosen.get("ref", "refs/heads/main"))
    event = str(chosen.get("event_name", "push"))
    workflow = chosen.get("workflow_ref", f"{repository}/.github/workflows/deliver.yml@{ref}")
    if "environment" in chosen:
        context = f"environment:{chosen['environment']}"
    else:
        context = "pull_request" if event == "pull_request" else f"ref:{ref}"
    sha = str(chosen.get("sha", hashlib.sha1(ref.encode(), usedforsecurity=False).hexdigest()))
    return {
        "sub": f"repo:{repository}:{context}",
        "ref": ref,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "ref_protected": "false",
        "sha": sha,
        "repository": repository,
        "repository_id": _number(repository),
        "repository_owner": owner,
        "repository_owner_id": _number(owner),
        "repository_visibility": "private",
        "actor": owner,
        "actor_id": _number(owner),
        "event_name": event,
        "head_ref": "",
        "base_ref": "",
        "workflow": "deliver",
        "workflow_ref": workflow,
        "workflow_sha": sha,
        "job_workflow_ref": workflow,
        "job_workflow_sha": sha,
        "check_run_id": "1",
        "run_id": "1",
        "run_number": "1",
        "run_attempt": "1",
        "runner_environment": "github-hosted",
        **chosen,
    }


def _number(name: str) -> str:
    """Return an ID in GitHub's form: made up, and always the same for a name."""
    return str(number_of(name, 4))
