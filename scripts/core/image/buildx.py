"""The image with Docker: `docker buildx build`, pushed, and the digest of what was pushed."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from scripts.core.errors import Failed, ShipError, UsageError

_STEP = re.compile(r"#\d+ \[.+\] ")  # "#7 [stage-1 2/4] COPY …" of `--progress plain`
_LINES = 20  # of the output, shown when a build fails


def engine_answers() -> bool:
    """Whether there is Docker with buildx here, and an engine behind it."""
    try:
        done = subprocess.run(
            ["docker", "buildx", "inspect", "--bootstrap"],
            capture_output=True, check=False, timeout=60,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def build(
    context: Path,
    *,
    dockerfile: Path,
    reference: str,
    platform: str,
    commit: str,
    created: int,
    labels: dict[str, str],
    progress: Callable[[str], None],
) -> str:
    """Build the folder `context` and push it.

    Args:
        context: the build context.
        dockerfile: the Dockerfile.
        reference: HOST/PATH:TAG to push to. Docker itself allows plain http on loopback only.
        platform: `os/architecture`.
        commit: the full SHA, given to the Dockerfile as build argument COMMIT_SHA.
        created: the commit's time (unix seconds): the image's too, whenever it is built.
        labels: put on the image.
        progress: told each step.

    Returns:
        The digest of the pushed manifest.

    Raises:
        UsageError: Docker or buildx is not installed, or no engine answers.
        Failed: the build or the push fails; its last lines are the evidence.
    """
    with tempfile.TemporaryDirectory(prefix="shipway-") as folder:
        metadata = Path(folder) / "metadata.json"
        arguments = {"COMMIT_SHA": commit, "SOURCE_DATE_EPOCH": str(created)}
        command = [
            *("docker", "buildx", "build", "--progress", "plain", "--push"),
            *("--platform", platform, "--file", str(dockerfile), "--tag", reference),
            *(word for k, v in arguments.items() for word in ("--build-arg", f"{k}={v}")),
            *(word for k, v in sorted(labels.items()) for word in ("--label", f"{k}={v}")),
            # One plain manifest, whatever the driver: the digest is the image's own, and not that
            # of an index whose attestation says something else each time. Provenance is attested
            # where it can be trusted, by the workflow that builds.
            *("--provenance", "false", "--sbom", "false"),
            *("--metadata-file", str(metadata), str(context)),
        ]
        _run(command, reference, progress)
        # https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file
        digest = json.loads(metadata.read_bytes()).get("containerimage.digest")
        if not isinstance(digest, str):
            raise Failed(f"docker buildx did not say which digest it pushed to {reference}")
        return digest


def _run(command: list[str], reference: str, progress: Callable[[str], None]) -> None:
    last: deque[str] = deque(maxlen=_LINES)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        raise UsageError(
            "docker is not installed", "install Docker with buildx, or build with --builder pack"
        ) from None
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last.append(line.rstrip())
                if _STEP.match(line):
                    progress(line.rstrip())
        except BaseException:
            process.terminate()  # an interrupted build does not go on and push
            raise
    if process.returncode:
        raise _failure(process.returncode, list(last), reference)


def _failure(code: int, lines: list[str], reference: str) -> ShipError:
    """What went wrong, from what docker said last."""
    text = "\n".join(lines)
    host = reference.partition("/")[0]
    if re.search(r"Cannot connect to the Docker daemon|daemon running\?|docker\.sock", text):
        return UsageError(
            "no Docker engine answers", "start Docker, or build with --builder pack", evidence=lines
        )
    if re.search(r"buildx. is not a docker command|unknown (?:flag: --progress|command)", text):
        return UsageError(
            "docker has no buildx", "https://docs.docker.com/go/buildx/", evidence=lines
        )
    if re.search(r"denied|unauthorized|401 |403 ", text, re.IGNORECASE):
        hint = f"gcloud auth configure-docker {host}"
        return Failed(f"{host} does not let Docker push to {reference}", hint, evidence=lines)
    return Failed(f"docker buildx build failed with exit code {code}", evidence=lines)
