"""Whether a Docker engine answers here, for the tests that need one."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

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


def forget_images(url: str) -> None:
    """Remove the images that were pushed to the registry of a local Cloud Run."""
    pattern = f"{url.removeprefix('http://')}/*/*/*"
    listed = ["docker", "image", "ls", "-q", "--no-trunc", pattern]
    found = subprocess.check_output(listed, text=True, timeout=60).split()
    if found:
        remove = ["docker", "image", "rm", "--force", *set(found)]
        subprocess.run(remove, capture_output=True, timeout=60, check=True)


def name_the_base_by_tag(dockerfile: Path) -> None:
    """Remove the digests of a copied Dockerfile's base images.

    An engine gets an image of a digest only from the registry that has it. Without a way to Docker
    Hub, a test needs an image of the same tag that was made on this machine.
    """
    pinned = dockerfile.read_text()
    dockerfile.write_text(re.sub(r"(?m)^(FROM \S+)@sha256:[0-9a-f]{64}", r"\1", pinned))
