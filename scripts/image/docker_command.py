"""Run docker: report its steps as they happen, and a failure as one error."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping

from scripts.config.image_reference import ImageReference
from scripts.errors import Failed, ShipError, UsageError
from scripts.image.docker_credential import TOKEN

_STEP = re.compile(r"#\d+ \[.+\] ")  # "#7 [stage-1 2/4] COPY …" of `--progress plain`
_LINES = 20  # of the output, shown when a build fails


def run(
    command: list[str],
    environment: Mapping[str, str],
    reference: ImageReference | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> list[str]:
    """Run a docker command; stop it when the caller is interrupted.

    Args:
        command: the words of the command; none is secret.
        environment: all its environment variables.
        reference: the image that it pushes.
        progress: called with each step of a build.

    Returns:
        The lines of its output.

    Raises:
        UsageError: Docker or buildx is not installed, or no engine answers.
        Failed: it fails; its last lines are the evidence.
    """
    output: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        raise UsageError(
            "docker is not installed",
            "install Docker with buildx, or build with --builder cloud-build",
        ) from None
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.append(line.rstrip())
                if _STEP.match(line):
                    progress(line.rstrip())
        except BaseException:
            process.terminate()  # an interrupted build does not go on and push
            raise
    if process.returncode:
        raise failure(process.returncode, output, environment, reference)
    return output


def failure(
    code: int,
    output: list[str],
    environment: Mapping[str, str],
    reference: ImageReference | None = None,
) -> ShipError:
    """Return the error for the last lines of docker's output."""
    lines = output[-_LINES:]
    text = "\n".join(lines)
    if re.search(r"Cannot connect to the Docker daemon|daemon running\?|docker\.sock", text):
        return UsageError(
            "no Docker engine answers",
            "start Docker, or build with --builder cloud-build",
            evidence=lines,
        )
    if re.search(r"buildx. is not a docker command|unknown (?:flag: --progress|command)", text):
        return UsageError(
            "docker has no buildx", "https://docs.docker.com/go/buildx/", evidence=lines
        )
    if reference and re.search(r"denied|unauthorized|401 |403 ", text, re.IGNORECASE):
        hint = f"docker login {reference.host}"
        if TOKEN in environment:
            hint = "the account that pushes needs roles/artifactregistry.writer on the repository"
        return Failed(
            f"{reference.host} does not let Docker push to {reference}", hint, evidence=lines
        )
    return Failed(f"docker buildx build failed with exit code {code}", evidence=lines)


def engine_answers() -> bool:
    """Return whether a Docker engine answers and buildx is installed."""
    if shutil.which("docker") is None:
        return False
    try:
        return all(
            subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
            for command in (
                ["docker", "version", "--format", "{{.Server.Version}}"],
                ["docker", "buildx", "version"],
            )
        )
    except subprocess.TimeoutExpired:
        return False
