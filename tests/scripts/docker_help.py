"""Whether a Docker engine answers here, for the tests that need one."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest


@functools.cache
def missing() -> str | None:
    """Return the reason why no Docker is available for tests, or None if one is."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command, reason in (
        (["docker", "version", "--format", "{{.Server.Version}}"], "no Docker engine answers"),
        (["docker", "buildx", "version"], "docker has no buildx"),
    ):
        if subprocess.run(command, capture_output=True, timeout=60).returncode:
            return reason
    return None


needs_docker = pytest.mark.skipif(missing() is not None, reason=f"left out: {missing()}")
