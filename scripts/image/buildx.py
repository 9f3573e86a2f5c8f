"""The image with Docker: `docker buildx build`, pushed, and the digest of what was pushed."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scripts.errors import Failed
from scripts.image import docker_command

# The time of every file and of the image itself, unless a file is older: 1980, as far back as zip
# files go. Never the commit's: BuildKit gives this time to the folder that WORKDIR makes, and a
# time that changes with each commit would make every layer after it a new one. The commit's time is
# in the label org.opencontainers.image.created.
# https://reproducible-builds.org/docs/source-date-epoch/
EPOCH = 315_532_800  # unix seconds


class Builder:
    """What builds: the builder that the user has chosen with buildx, the default one else.

    Args:
        environment: of every docker command, which says where to log in: see `docker_login`.

    Raises:
        UsageError: Docker or buildx is not installed, or no engine answers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        said = docker_command.run(["docker", "buildx", "inspect"], environment)
        found = [re.match(r"Driver:\s+(\S+)", line) for line in said]
        self.driver = next((match[1] for match in found if match), "")
        if not self.driver:  # it says why, and ends as if all were well
            raise docker_command.failure(0, said, environment)

    @property
    def is_engine(self) -> bool:
        """Whether Docker's engine builds by itself, and not a BuildKit of its own.

        The engine neither attests, nor keeps the layers of the earlier stages in a registry.
        https://docs.docker.com/build/builders/drivers/
        """
        return self.driver == "docker"

    def cache_repository(self, repository: str) -> str:
        """Where the layers of earlier builds are kept: HOST/PATH, one tag a commit.

        The engine puts what it knows of its layers into the image itself. BuildKit keeps the layers
        of all stages, for which the image is no place. A tag is written once in both cases: a
        registry that never lets a tag move is fine.
        """
        return repository if self.is_engine else f"{repository}/cache"

    def build(
        self,
        context: Path,
        *,
        dockerfile: Path,
        repository: str,
        platform: str,
        commit: str,
        earlier: Sequence[str] = (),
        labels: dict[str, str],
        progress: Callable[[str], None],
    ) -> str:
        """Build the folder `context` and push it.

        Args:
            context: the build context.
            dockerfile: the Dockerfile.
            repository: HOST/PATH to push to. Docker allows plain http on loopback only.
            platform: `os/architecture`.
            commit: the full SHA: the tag, and given to the Dockerfile as build argument COMMIT_SHA.
            earlier: the commits whose layers are used again, from `cache_repository`.
            labels: put on the image.
            progress: told each step.

        Returns:
            The digest of what was pushed: a manifest's, or an index's with attestations.

        Raises:
            UsageError: no engine answers.
            Failed: the build or the push fails; its last lines are the evidence.
        """
        reference = f"{repository}:{commit}"
        arguments = {"COMMIT_SHA": commit, "SOURCE_DATE_EPOCH": str(EPOCH)}
        with tempfile.TemporaryDirectory(prefix="shipway-") as folder:
            metadata = Path(folder) / "metadata.json"
            command = [
                *("docker", "buildx", "build", "--progress", "plain"),
                *("--platform", platform, "--file", str(dockerfile), "--tag", reference),
                *(word for k, v in arguments.items() for word in ("--build-arg", f"{k}={v}")),
                *(word for k, v in sorted(labels.items()) for word in ("--label", f"{k}={v}")),
                *self._pushed(),
                *self._cached(self.cache_repository(repository), commit, earlier),
                *("--metadata-file", str(metadata), str(context)),
            ]
            docker_command.run(command, self._environment, reference, progress)
            # https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file
            digest = json.loads(metadata.read_bytes()).get("containerimage.digest")
        if not isinstance(digest, str):
            raise Failed(f"docker buildx did not say which digest it pushed to {reference}")
        return digest

    def _pushed(self) -> list[str]:
        """How it is pushed, with what the builder can attest.

        https://docs.docker.com/build/metadata/attestations/
        """
        if self.is_engine:
            return ["--push", "--provenance", "false", "--sbom", "false"]
        output = "type=image,push=true,oci-mediatypes=true,rewrite-timestamp=true"
        return ["--output", output, "--provenance", "mode=max", "--sbom", "true"]

    def _cached(self, where: str, commit: str, earlier: Sequence[str]) -> list[str]:
        """Which layers are used again, and where this build's are kept.

        https://docs.docker.com/build/cache/backends/
        """
        start = [
            word for tag in earlier for word in ("--cache-from", f"type=registry,ref={where}:{tag}")
        ]
        if self.is_engine:
            return [*start, "--cache-to", "type=inline"]
        # A manifest of the kind that every registry takes. That it cannot be pushed, because a
        # build that was stopped has left one, is no reason to deliver nothing.
        kept = f"type=registry,ref={where}:{commit},mode=max"
        kept += ",image-manifest=true,oci-mediatypes=true,ignore-error=true"
        return [*start, "--cache-to", kept]
