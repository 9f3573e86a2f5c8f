"""Builds with the Docker engine, for Dockerfiles that need an operating system."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from emulator.builds.errors import Failed
from emulator.builds.models import Handle
from emulator.builds.steps import DockerBuild
from emulator.packed import BUILDER, DOCKER

_SECONDS = 20
Say = Callable[[str], None]


def answers() -> bool:
    """Return whether a Docker engine answers and buildx is installed."""
    if shutil.which("docker") is None:
        return False
    asked = (
        ["docker", "version", "--format", "{{.Server.Version}}"],
        ["docker", "buildx", "version"],
    )
    try:
        return all(
            subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode
            == 0
            for command in asked
        )
    except subprocess.TimeoutExpired:
        return False


def build(
    step: DockerBuild,
    context: Path,
    contexts: Mapping[str, Path],
    dockerfile: Path,
    say: Say,
    handle: Handle,
) -> str:
    """Build an image in the engine; return the name that it has there.

    Args:
        step: What to build.
        context: The build context, which was found to be in the source.
        contexts: The step's other contexts, by name, as well.
        dockerfile: The Dockerfile.
        say: Called with each line of the output.
        handle: Stops the build.

    Raises:
        Failed: Docker fails.
        Cancelled: The build was stopped.
    """
    name = f"shipway-build:{uuid.uuid4().hex}"
    command = [
        # The engine itself: other builders cannot hand an image over.
        *("docker", "buildx", "--builder", "default", "build", "--load", "--progress", "plain"),
        *("--provenance", "false", "--tag", name, "--file", str(dockerfile)),
        *(["--platform", step.platform] if step.platform else []),
        *(["--target", step.target] if step.target else []),
        *(word for k, v in step.arguments.items() for word in ("--build-arg", f"{k}={v}")),
        *(word for k, v in step.labels.items() for word in ("--label", f"{k}={v}")),
        *(word for k, v in contexts.items() for word in ("--build-context", f"{k}={v}")),
        *("--label", f"{BUILDER}={DOCKER}"),
        str(context),
    ]
    _run(command, say, handle)
    return name


def push(image: str, host: str, name: str, token: str, say: Say) -> None:
    """Push an image of the engine to a registry; raises Failed.

    Args:
        image: Its name in the engine.
        host: The registry, HOST:PORT.
        name: Its name there, NAME:TAG.
        token: An access token; "" if the registry needs none.
        say: Called with each line of the output.
    """
    reference = f"{host}/{name}"
    with tempfile.TemporaryDirectory(prefix="shipway-") as folder:
        login = base64.b64encode(f"oauth2accesstoken:{token}".encode()).decode()
        known = {"auths": {host: {"auth": login}}} if token else {}
        config = Path(folder, "config.json")
        config.touch(mode=0o600)
        config.write_text(json.dumps(known))
        _run(["docker", "tag", image, reference], say, Handle())
        try:
            _run(["docker", "--config", folder, "push", "--quiet", reference], say, Handle())
        finally:
            forget([reference])


def forget(images: Iterable[str]) -> None:
    """Remove names of images from the engine; it keeps the layers for the next build."""
    if names := list(images):
        subprocess.run(["docker", "image", "rm", *names], capture_output=True, check=False)


def _run(command: list[str], say: Say, handle: Handle) -> None:
    with subprocess.Popen(
        command,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        # A step may print nothing for minutes.
        with handle.ending(process.terminate):
            try:
                for line in process.stdout:
                    say(line.rstrip())
            except BaseException:
                process.terminate()
                raise
    handle.check()
    if process.returncode:
        verb = "push" if "push" in command else command[1]
        raise Failed(f"docker {verb} failed with exit code {process.returncode}")
