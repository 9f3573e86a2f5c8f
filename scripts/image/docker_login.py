"""Log Docker in for one build, without `docker login` and without a token in any file (I9)."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.errors import UsageError
from scripts.image import docker_credential as credential

_HELPER = "shipway"  # Docker runs docker-credential-shipway


@contextmanager
def environment(host: str, token: str | None) -> Iterator[dict[str, str]]:
    """Make the environment variables with which docker is logged in to a registry.

    Keeps the user's other settings: contexts, builders, plugins, other logins.

    Args:
        host: the registry's host, as in an image reference.
        token: an access token; None for the user's own login.

    Raises:
        UsageError: the user's config.json cannot be read.
    """
    if token is None:
        yield dict(os.environ)
        return
    users = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    with TemporaryDirectory(prefix="shipway-docker-") as name:
        folder = Path(name)
        for entry in users.iterdir() if users.is_dir() else ():
            if entry.name != "config.json":
                (folder / entry.name).symlink_to(entry)
        config = _config(users / "config.json", host)
        (folder / "config.json").write_text(json.dumps(config))
        programs = folder / "shipway"
        programs.mkdir()
        helper = programs / f"docker-credential-{_HELPER}"
        command = shlex.join([sys.executable, "-I", "-S", str(Path(credential.__file__))])
        helper.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        helper.chmod(0o700)
        yield {
            **os.environ,
            "DOCKER_CONFIG": name,
            # Keep builders that the user creates or selects in the meantime.
            "BUILDX_CONFIG": os.environ.get("BUILDX_CONFIG") or str(users / "buildx"),
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            credential.HOST: host,
            credential.TOKEN: token,
            credential.CONFIG: str(users / "config.json"),
        }


def _config(file: Path, host: str) -> dict[str, Any]:
    """Return the user's config.json with our helper for `host`, and without its logins.

    The helper reads the logins in the original file: no secret is written a second time.
    """
    try:
        config = json.loads(file.read_bytes()) if file.is_file() else {}
        logins = config.pop("auths", {})
        helpers = config.get("credHelpers", {})
        # With a credentials store, the entries are names only: the store has the logins.
        held = {} if config.get("credsStore") else logins
        ours = {
            name if "docker.io/" in name else credential.host(name)
            for name, entry in held.items()
            if entry
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{file}: not a Docker configuration: {error}") from None
    config["credHelpers"] = {**dict.fromkeys(ours, _HELPER), **helpers, host: _HELPER}
    return dict(config)
