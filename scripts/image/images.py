"""The images of one service: found in the registry, checked, built and pushed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from scripts import HOME
from scripts.cloud.registry import Registry, Resolved
from scripts.errors import Failed, Refused, UsageError
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.machine.platform import host_platform
from scripts.service.context import Context

if TYPE_CHECKING:
    from scripts.image.buildx import Builder

_REVISION = "org.opencontainers.image.revision"
_ANCESTORS = 20  # how far back layers are looked for: one short request each


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
        self.registry_url = f"{scheme}://{host}"
        self.registry = Registry(self.registry_url, google.http, google.token)

    @property
    def platform(self) -> str:
        """The platform that the environment takes: "linux/amd64", or this machine's own."""
        wanted = self.context.pipeline.environment.platform
        return host_platform() if wanted == "host" else wanted

    def find(self, commit: Commit) -> Found | None:
        """The image whose tag is the commit's full SHA, or None."""
        resolved = self.registry.resolve(self.path, commit.sha)
        if resolved is None:
            return None
        return Found(reference=f"{self.repository}@{resolved.digest}", resolved=resolved)

    def checked(self, commit: Commit, digest: str | None = None) -> str:
        """The reference by digest of a commit's image, after the preflight (I2).

        Args:
            commit: whose image it must be.
            digest: sha256:…, if the caller knows already which image it means.

        Raises:
            UsageError: there is none, or none of that digest.
            Refused: the tag or the digest is another commit's, or it is not for the platform that
                the environment takes.
        """
        found = self.find(commit)
        where = self.context.where
        if digest is not None:
            self._is_of(commit, digest, found)
        if found is None:
            raise UsageError(
                f"commit {commit.short} is not in {self.repository}", f"./ship build {where}"
            )
        resolved = found.resolved
        if self.platform not in resolved.platforms:
            raise Refused(self._other_platform(found), self._away(found.reference))
        builder = resolved.labels.get("dev.shipway.builder")
        if builder == "pack" and self.context.pipeline.environment.builder != "pack":
            raise Refused(
                f"{found.reference} was packed without an operating system:"
                f" {self.context.pipeline.env} cannot run it",
                self._away(found.reference),
            )
        revision = resolved.labels.get(_REVISION, commit.sha)
        if revision != commit.sha:
            raise Refused(
                f"{self.repository}:{commit.sha} is not commit {commit.short}'s image: its label"
                f" {_REVISION} says {revision}",
                self._away(f"{self.repository}:{commit.sha}"),
            )
        return found.reference

    def _is_of(self, commit: Commit, digest: str, found: Found | None) -> None:
        """Refuse a digest that is not the one of the commit's image."""
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise UsageError(f"--digest {digest}: not a digest: sha256: and 64 hexadecimal digits")
        if found and found.resolved.digest == digest:
            return
        there = self.registry.resolve(self.path, digest)
        if there is None:
            raise UsageError(
                f"--digest {digest}: {self.repository} has no such image",
                f"./ship build {self.context.where} prints the digest of the commit's image",
            )
        revision = there.labels.get(_REVISION, "")
        says = f"the tag {commit.sha} names {found.resolved.digest}" if found else "no tag says so"
        raise Refused(
            f"--digest {digest} is not the image of commit {commit.short}: {says}",
            f"it was built from {revision}: --commit {revision}"
            if revision and revision != commit.sha
            else "leave --digest out to deliver the commit's own image",
        )

    def _other_platform(self, found: Found) -> str:
        """That an image does not run there, in the words in which Cloud Run would say it."""
        env, wanted = self.context.pipeline.env, self.platform
        has = ", ".join(found.resolved.platforms) or "nothing that runs"
        text = f"{found.reference} is for {has}; {env} takes {wanted}"
        if wanted != "linux/amd64":
            return text
        return (
            f"{text}: Container manifest type '{found.resolved.media_type}' must support"
            " amd64/linux. Was it built on an Arm laptop, by something else than ./ship build?"
        )

    def _away(self, reference: str) -> str:
        """How to make room for a right image: away with this one, or only with this tag."""
        again = f"./ship build {self.context.where}, which builds for {self.platform} anywhere"
        if not self.repository.partition("/")[0].endswith("-docker.pkg.dev"):
            return f"delete {reference} from the registry; then {again}"
        what = f"images delete {reference} --delete-tags"
        if "@" not in reference:
            what = f"tags delete {reference}"  # the image itself is another commit's, who needs it
        return f"gcloud artifacts docker {what}; then {again}"

    def build(self, commit: Commit, builder: str, say: Callable[[str], None]) -> str:
        """Build and push; in a dry run only build, where that needs no push.

        Returns:
            The reference by digest.

        Raises:
            UsageError: there is no Dockerfile, or no engine answers.
            Failed: the build or the push fails, or the registry has something else afterwards.
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
            return f"{self.repository}@{self._with_docker(commit, labels, say)}"
        from scripts.image.packing import pack

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

    def _with_docker(
        self, commit: Commit, labels: dict[str, str], say: Callable[[str], None]
    ) -> str:
        """The digest of what Docker built and pushed, read back from the registry."""
        from scripts.image import docker_login, inline_cache
        from scripts.image.buildx import Builder

        source = self.context.pipeline.source
        host = self.repository.partition("/")[0]
        token = self.context.google.token(self.registry_url)
        with docker_login.environment(host, token) as environment:
            docker = Builder(environment)
            earlier = self._earlier(commit, docker, say)
            if docker.is_engine and earlier:
                labels = {**labels, inline_cache.LABEL: " ".join(earlier)}
            try:
                digest = docker.build(
                    source,
                    dockerfile=source / "Dockerfile",
                    repository=self.repository,
                    platform=self.platform,
                    commit=commit.sha,
                    earlier=earlier,
                    labels=labels,
                    progress=say,
                )
            except Failed:
                # Two may build one commit at once. Where a tag never moves, one of them comes late.
                if (there := self.find(commit)) is None:
                    raise
                say("somebody else has pushed it meanwhile")
                return there.resolved.digest
        pushed = self.find(commit)
        if pushed is None or pushed.resolved.digest != digest:
            has = pushed.resolved.digest if pushed else "nothing"
            raise Failed(
                f"docker pushed {digest} to {self.repository}:{commit.sha}, and there is {has}",
                f"./ship build {self.context.where}",
            )
        return digest

    def _earlier(self, commit: Commit, docker: Builder, say: Callable[[str], None]) -> list[str]:
        """The commits before this one whose layers can be used again, nearest first."""
        from scripts.image import inline_cache

        path = docker.cache_repository(self.repository).partition("/")[2]
        commits = git.ancestors(self.context.root, commit, _ANCESTORS)
        for sha in commits:
            if self.registry.has(path, sha):
                say(f"layers of commit {sha[:7]} are used again")
                return inline_cache.sources(self.registry, path, sha) if docker.is_engine else [sha]
        if not commits:
            say("no layers to use again: git knows no earlier commit here")
        return []

    def attestations(self, image: str) -> list[str]:
        """The predicate types of what is attested of an image: provenance, its contents (SBOM)."""
        return self.registry.attestations(self.path, image.rpartition("@")[2])

    def _labels(self, commit: Commit) -> dict[str, str]:
        """Source: https://github.com/opencontainers/image-spec/blob/main/annotations.md."""
        labels = {
            _REVISION: commit.sha,
            "org.opencontainers.image.created": datetime.fromtimestamp(
                commit.time, UTC
            ).isoformat(),
        }
        source = git.origin(self.context.root)
        return {**labels, "org.opencontainers.image.source": source} if source else labels
