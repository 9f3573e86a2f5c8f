"""Docker's credential helper for one build: run by Docker, as `docker-credential-shipway get`.

It answers with an access token from its environment, and for other registries with the login in the
user's own config.json. It runs by itself, so it imports only the standard library.

Protocol: https://github.com/docker/docker-credential-helpers#development (server on standard
input, JSON on standard output).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
from pathlib import Path

# The variables that `docker_login` sets.
HOST = "SHIPWAY_REGISTRY"
TOKEN = "SHIPWAY_REGISTRY_TOKEN"  # noqa: S105 - a name
CONFIG = "SHIPWAY_DOCKER_CONFIG"

# Docker reads exactly this as "no login: try without one".
_NOT_FOUND = "credentials not found in native keychain"


def answer(server: str) -> tuple[str, str] | None:
    """Return user name and password for a registry; None if there is no login.

    Args:
        server: its host, as Docker names it; Docker Hub's is https://index.docker.io/v1/.
    """
    if host(server) == os.environ.get(HOST):
        # https://cloud.google.com/artifact-registry/docs/docker/authentication#token
        return "oauth2accesstoken", os.environ[TOKEN]
    config = os.environ.get(CONFIG)
    if not config or not Path(config).is_file():
        return None
    for name, entry in json.loads(Path(config).read_bytes()).get("auths", {}).items():
        if host(name) == host(server):
            return _login(entry)
    return None


def _login(entry: dict[str, str]) -> tuple[str, str] | None:
    """Return an entry's login: {"auth": base64 of "user:password"} or {"identitytoken": …}."""
    if entry.get("identitytoken"):
        return "<token>", entry["identitytoken"]
    try:
        user, colon, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password.rstrip("\0")) if colon else None


def host(server: str) -> str:
    """Return the host of a registry's name, which may be a URL."""
    return server.partition("://")[2].partition("/")[0] if "://" in server else server


def main() -> int:
    """Answer one request from Docker; a build sends only `get`."""
    server = sys.stdin.read().strip()
    found = answer(server) if sys.argv[1:] == ["get"] else None
    if found is None:
        print(_NOT_FOUND)
        return 1
    print(json.dumps({"ServerURL": server, "Username": found[0], "Secret": found[1]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
