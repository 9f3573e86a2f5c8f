"""The environment variables with which gcloud uses the local Cloud Run of a checkout.

gcloud puts the region before the host of Cloud Run's endpoint (us-central1-shipway.localhost), a
name that not every machine can resolve. So the local Cloud Run is also the HTTP proxy, which
resolves no names; nothing that gcloud sends leaves this machine.

Sources: https://cloud.google.com/sdk/docs/properties (each property has a variable
CLOUDSDK_SECTION_PROPERTY; `gcloud topic configurations`).
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

from scripts.cloud.local_identity import OWNER, LocalIdentity, is_member
from scripts.config import pipelines, running
from scripts.config.formats import Environment
from scripts.config.running import Running
from scripts.errors import UsageError

_PATHS = {
    "artifactregistry": "",
    "binaryauthorization": "",
    "cloudbuild": "",
    "cloudresourcemanager": "",
    "iam": "",
    "iamcredentials": "",
    "logging": "",
    "monitoring": "",
    "run": "",
    "secretmanager": "",
    "serviceusage": "",
    "storage": "storage/v1/",
}
"""API -> the path that gcloud has in its endpoint."""


def show(found: Running, root: Path) -> int:
    """Print one `export` for each variable; return the exit code.

    Args:
        found: the local Cloud Run.
        root: its checkout.
    """
    for name, value in variables(found, root).items():
        print(f"export {name}={shlex.quote(value)}")
    if sys.stdout.isatty():
        print('To set them: eval "$(./ship up --env-gcloud)"', file=sys.stderr)
    return 0


def variables(found: Running, root: Path) -> dict[str, str]:
    """Return the variables: name -> value."""
    where = urlsplit(found.url)
    base = f"http://shipway.localhost:{where.port}/"
    values = {f"api_endpoint_overrides_{api}": base + path for api, path in _PATHS.items()}
    values |= {
        "proxy_type": "http",
        "proxy_address": str(where.hostname),
        "proxy_port": str(where.port),
        # Its own, so that no login and no default of yours is used.
        "config": str(root / ".shipway" / "gcloud"),
        "core_disable_usage_reporting": "true",
        "component_manager_disable_update_check": "true",
        # gcloud reads the log of a build at https://storage.googleapis.com: the proxy answers.
        "core_custom_ca_certs_file": str(Path(found.state, "google-certificate.pem").resolve()),
    }
    environment = _environment(root)
    if environment:
        values["core_project"] = environment.project
        values["run_region"] = environment.regions[0]
        values["artifacts_location"] = environment.regions[0]
    if found.iam != running.ENFORCE:
        values["auth_disable_credentials"] = "true"
    else:
        named = environment.credentials if environment else ""
        member = named if is_member(named) else OWNER
        values["auth_access_token_file"] = str(_token_file(found, member))
    return {f"CLOUDSDK_{name.upper()}": value for name, value in values.items()}


def _environment(root: Path) -> Environment | None:
    """Return the environment that the commands use by default; None if it cannot be read."""
    try:
        name = next(iter(pipelines.having(root, pipelines.DEFAULT_ENV)), None)
        return pipelines.load(root, name, pipelines.DEFAULT_ENV).environment
    except UsageError:
        return None


def _token_file(found: Running, member: str) -> Path:
    """Write a token beside the local Cloud Run's own secret, where only its owner can read it.

    It is worth nothing elsewhere, and for an hour. gcloud takes a token from a file only.
    """
    file = Path(found.state, "gcloud-token")
    fresh = file.with_name(f"{file.name}.tmp")
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w") as output:
        output.write(LocalIdentity(found, member).token())
    fresh.replace(file)
    return file
