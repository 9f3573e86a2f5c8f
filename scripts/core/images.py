"""The images of one service: found in the registry, checked, built and pushed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from scripts.core import HOME, git
from scripts.core.context import Context
from scripts.core.errors import Refused, UsageError
from scripts.core.git import Commit
from scripts.core.image import buildx, pack
from scripts.core.image.registry import Registry, Resolved


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the registry: HOST/PROJECT/REPOSITORY/SERVICE@sha256:…, and what it says."""

    reference: str
    resolved: Resolved


class Images:
    """One service's images in its environment's registry."""

    def __init__(self, context: Context) -> None:
        self.context = context
        pipeline = context.pipeline
        self.repository = pipeline.repository
        host, _, self.path = self.repository.partition("/")
        scheme = (pipeline.endpoint or "https://").partition("://")[0]
        google = context.google
        self.registry = Registry(f"{scheme}://{host}", google.http, google.token)

    @property
    def platform(self) -> str:
        """The platform that the environment takes: "linux/amd64", or this machine's own."""
        wanted = self.context.pipeline.environment.platform
        return pack.host_platform() if wanted == "host" else wanted

    def find(self, commit: Commit) -> Found | None:
        """The image whose tag is the commit's full SHA, or None."""
        resolved = self.registry.resolve(self.path, commit.sha)
        if resolved is None:
            return None
        return Found(reference=f"{self.repository}@{resolved.digest}", resolved=resolved)

    def checked(self, commit: Commit, digest: str | None = None) -> str:
        """The reference by digest of a commit's image, after the preflight (I2).

        Args:
            commit: what it was built from.
            digest: which image it must be; None to take what the commit's tag names.

        Raises:
            UsageError: there is none.
            Refused: it is another one than `digest`, or none that the environment takes.
        """
        found = self.find(commit)
        where = self.context.where
        if digest and (found is None or found.resolved.digest != digest):
            raise self._another(commit, digest, found)
        if found is None:
            raise UsageError(
                f"commit {commit.short} is not in {self.repository}", f"./ship build {where}"
            )
        if self.platform not in found.resolved.platforms:
            has = ", ".join(found.resolved.platforms) or "nothing"
            raise Refused(
                f"{found.reference} is for {has};"
                f" {self.context.pipeline.env} takes {self.platform}",
                f"build it with --platform {self.platform}: ./ship build does, on any machine",
            )
        builder = found.resolved.labels.get("dev.shipway.builder")
        if builder == "pack" and self.context.pipeline.environment.builder != "pack":
            raise Refused(
                f"{found.reference} was packed without an operating system:"
                f" {self.context.pipeline.env} cannot run it",
                "delete that tag and build it with docker",
            )
        return found.reference

    def _another(self, commit: Commit, digest: str, found: Found | None) -> Refused:
        """Why a commit's image is not the one that was asked for, and what to do."""
        first = self.context.pipeline.environment.after
        makes = f"./ship build {self.context.where}"
        if first:  # it never builds itself
            makes = f"./ship deliver {self.context.pipeline.service} --env {first}"
        if self.registry.resolve(self.path, digest) is None:
            return Refused(
                f"{digest} is not in {self.repository}",
                f"{makes} --commit {commit.sha} puts this commit's image there",
            )
        if found is None:
            return Refused(
                f"{digest} is not commit {commit.short}'s image: that commit has none"
                f" in {self.repository}",
                f"{makes} --commit {commit.sha}",
            )
        return Refused(
            f"{digest} is not commit {commit.short}'s image:"
            f" its tag in {self.repository} names {found.resolved.digest}",
            "--commit names the commit that it was built from;"
            f" this one's is --digest {found.resolved.digest}",
        )

    def build(self, commit: Commit, builder: str, say: Callable[[str], None]) -> str:
        """Build and push; in a dry run only build, where that needs no push.

        Returns:
            The reference by digest.
        """
        context = self.context.pipeline
        source = context.source
        if not (source / "Dockerfile").is_file():
            raise UsageError(
                f"{source.name}/Dockerfile: no such file in commit {commit.short}",
                f"pipelines/{context.service}/ delivers the folder {source.name}/",
            )
        labels = self._labels(commit)
        if builder == "docker":
            if self.context.dry_run:
                return f"{self.repository}:{commit.sha}"
            digest = buildx.build(
                source,
                dockerfile=source / "Dockerfile",
                reference=f"{self.repository}:{commit.sha}",
                platform=self.platform,
                commit=commit.sha,
                created=commit.time,
                labels=labels,
                progress=say,
            )
            return f"{self.repository}@{digest}"
        image = pack.pack(
            source,
            dockerfile=source / "Dockerfile",
            commit=commit.sha,
            created=commit.time,
            platform=self.platform,
            cache=HOME / ".shipway" / "cache",
            labels=labels,
            progress=say,
        )
        if not self.context.dry_run:
            self.registry.push(self.path, commit.sha, image, say)
        return f"{self.repository}@{image.digest}"

    def _labels(self, commit: Commit) -> dict[str, str]:
        """Source: https://github.com/opencontainers/image-spec/blob/main/annotations.md."""
        labels = {
            "org.opencontainers.image.revision": commit.sha,
            "org.opencontainers.image.created": datetime.fromtimestamp(
                commit.time, UTC
            ).isoformat(),
        }
        source = git.origin(self.context.root)
        return {**labels, "org.opencontainers.image.source": source} if source else labels
