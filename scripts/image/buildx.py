"""The image with Docker: `docker buildx build`, pushed, and the digest of what was pushed."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scripts.config.image_reference import ImageReference
from scripts.errors import Failed
from scripts.image import docker_command

# The time of the image and of every file that is not older: 1980, the earliest in zip files. Not
# the commit's time: BuildKit gives this time to the folder that WORKDIR makes, and a new time for
# each commit would change every layer after it. The commit's time is in the label
# org.opencontainers.image.created.
# https://reproducible-builds.org/docs/source-date-epoch/
EPOCH = 315_532_800  # unix seconds
# BuildKit runs this image on all files of the new one. Its default is a tag, which can move.
# https://docs.docker.com/build/metadata/attestations/sbom/#sbom-generator
SBOM_SCANNER = (
    # In one piece, so that `nox -s pin` finds and moves it.
    "docker/buildkit-syft-scanner:1.12.0@sha256:ae4f3b554449e7e25548e7d8ccc029d17357348e30c6e3df01b92bc93654d6a9"
)


class Builder:
    """The builder that the user has selected with buildx, or the default one.

    Args:
        environment: the environment variables of docker commands, from `docker_login`.

    Raises:
        UsageError: Docker or buildx is not installed, or no engine answers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        output = docker_command.run(["docker", "buildx", "inspect"], environment)
        found = [re.match(r"Driver:\s+(\S+)", line) for line in output]
        self.driver = next((match[1] for match in found if match), "")
        if not self.driver:  # it prints the reason, and exits with 0
            raise docker_command.failure(0, output, environment)

    @property
    def is_engine(self) -> bool:
        """Whether Docker's engine builds, and not a separate BuildKit.

        The engine makes no attestations, and keeps no layers of earlier stages in a registry.
        https://docs.docker.com/build/builders/drivers/
        """
        return self.driver == "docker"

    def cache_repository(self, repository: ImageReference) -> ImageReference:
        """Return the repository that keeps the layers of earlier builds, one tag for each commit.

        The engine writes its cache into the image itself. BuildKit keeps the layers of all stages,
        which do not fit into the image. Both write a tag once, so immutable tags are fine.
        """
        if self.is_engine:
            return repository
        return ImageReference(host=repository.host, path=f"{repository.path}/cache")

    def build(
        self,
        context: Path,
        *,
        dockerfile: Path,
        repository: ImageReference,
        platform: str,
        commit: str,
        earlier: Sequence[str] = (),
        labels: dict[str, str],
        contexts: Mapping[str, Path],
        progress: Callable[[str], None],
    ) -> str:
        """Build the folder `context` and push it.

        Args:
            context: the build context.
            dockerfile: the Dockerfile.
            repository: where to push. Docker allows plain http on loopback only.
            platform: `os/architecture`.
            commit: the full SHA: the tag, and the Dockerfile's build argument COMMIT_SHA.
            earlier: the commits whose layers are reused, from `cache_repository`.
            labels: the image's labels.
            contexts: name in the Dockerfile → a folder outside of the build context.
            progress: called with each step.

        Returns:
            The digest of the pushed manifest, or of an index with attestations.

        Raises:
            UsageError: no engine answers.
            Failed: the build or the push fails; its last lines are the evidence.
        """
        reference = repository.by_tag(commit)
        arguments = {"COMMIT_SHA": commit, "SOURCE_DATE_EPOCH": str(EPOCH)}
        with tempfile.TemporaryDirectory(prefix="shipway-") as folder:
            metadata = Path(folder) / "metadata.json"
            command = [
                *("docker", "buildx", "build", "--progress", "plain"),
                *("--platform", platform, "--file", str(dockerfile), "--tag", str(reference)),
                *(word for k, v in arguments.items() for word in ("--build-arg", f"{k}={v}")),
                *(word for k, v in sorted(labels.items()) for word in ("--label", f"{k}={v}")),
                *(word for k, v in contexts.items() for word in ("--build-context", f"{k}={v}")),
                *self._pushed(),
                *self._cached(self.cache_repository(repository), commit, earlier),
                *("--metadata-file", str(metadata), str(context)),
            ]
            docker_command.run(command, self._environment, reference, progress)
            # https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file
            digest = json.loads(metadata.read_bytes()).get("containerimage.digest")
        if not isinstance(digest, str):
            raise Failed(f"docker buildx did not report the digest that it pushed to {reference}")
        return digest

    def _pushed(self) -> list[str]:
        """Return the options for pushing, with the attestations that the builder supports.

        https://docs.docker.com/build/metadata/attestations/
        """
        if self.is_engine:
            return ["--push", "--provenance", "false", "--sbom", "false"]
        output = "type=image,push=true,oci-mediatypes=true,rewrite-timestamp=true"
        sbom = f"type=sbom,generator={SBOM_SCANNER}"
        return ["--output", output, "--provenance", "mode=max", "--attest", sbom]

    def _cached(self, where: ImageReference, commit: str, earlier: Sequence[str]) -> list[str]:
        """Return the options for reusing earlier layers and for storing this build's.

        https://docs.docker.com/build/cache/backends/
        """
        start = [
            word
            for tag in earlier
            for word in ("--cache-from", f"type=registry,ref={where.by_tag(tag)}")
        ]
        if self.is_engine:
            return [*start, "--cache-to", "type=inline"]
        # A manifest type that every registry accepts. A build that was stopped may have pushed
        # one already, which must not stop a delivery.
        kept = f"type=registry,ref={where.by_tag(commit)},mode=max"
        kept += ",image-manifest=true,oci-mediatypes=true,ignore-error=true"
        return [*start, "--cache-to", kept]
