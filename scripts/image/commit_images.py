"""The images of a service's commits: find them in the registry, check, build and push them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import msgspec

from scripts.cloud.google import Google
from scripts.cloud.referrers import Referrers
from scripts.cloud.registry import Resolved
from scripts.config import relations
from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import Pipeline
from scripts.config.sources import APP, SOURCE
from scripts.errors import Failed, Refused, UsageError
from scripts.ledger import Write
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.machine.platform import host_platform

_REVISION = "org.opencontainers.image.revision"
_SOURCE = "org.opencontainers.image.source"
_WORD = "dev.shipway.image"  # the manifest's placeholder, unless it is `app`
_ANCESTORS = 20  # how many are tried for layers: one short request each


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the registry: its reference by digest, its platforms and labels."""

    reference: ImageReference
    resolved: Resolved


class CommitImages:
    """The images of one folder of a service, each tagged with a commit's full SHA.

    Args:
        pipeline: the service's files.
        google: the APIs as its environment reaches them. In a dry run nothing is pushed.
        root: the git repository that knows the commits.
        word: the manifest's placeholder, whose folder gets built.

    Attributes:
        name: the repository below the registry: SERVICE, or SERVICE/WORD.
        repository: the repository.
    """

    def __init__(self, pipeline: Pipeline, google: Google, root: Path, word: str = APP) -> None:
        self._pipeline = pipeline
        self._google = google
        self._root = root
        self._word = word
        below = "" if word == APP else f"/{word}"
        own = pipeline.repository
        self.name = f"{pipeline.service}{below}"
        self.repository = ImageReference(host=own.host, path=f"{own.path}{below}")
        scheme = (pipeline.endpoint or "https://").partition("://")[0]
        self._registry_url = f"{scheme}://{self.repository.host}"
        self._registry = Referrers(
            self._registry_url,
            google.http,
            google.token,
            newer_token=google.newer_token,
            writes=google.writes,
        )

    def each(self) -> dict[str, CommitImages]:
        """Return the images of every folder that the manifest names, by placeholder."""
        others = (word for word in self._pipeline.sources if word != self._word)
        return {
            self._word: self,
            **{
                word: CommitImages(self._pipeline, self._google, self._root, word)
                for word in others
            },
        }

    @property
    def platform(self) -> str:
        """The platform that the environment runs: "linux/amd64", or this machine's own."""
        wanted = self._pipeline.environment.platform
        return host_platform() if wanted == "host" else wanted

    @cached_property
    def _origin(self) -> str:
        return git.origin(self._root)

    def find(self, commit: Commit) -> Found | None:
        """Return the image whose tag is the commit's full SHA, or None. `unfit` judges it."""
        resolved = self._registry.resolve(self.repository.path, commit.sha)
        if resolved is None:
            return None
        return Found(reference=self.repository.by_digest(resolved.digest), resolved=resolved)

    def unfit(self, commit: Commit, found: Found) -> str:
        """Return why an image under the commit's tag is not one that `build` made; "" if it is.

        Anyone who may push can push anything under a commit's tag. The label `source` may differ:
        a clone can come from another address than the one that the image was built in.
        """
        for label, value in self._labels(commit).items():
            has = found.resolved.labels.get(label)
            if has is None:
                return f"it has no label {label}, which ./ship build writes"
            if has != value and label != _SOURCE:
                return f"its label {label} says {has}"
        if (has := found.resolved.labels.get(_WORD, APP)) != self._word:
            return f"its label {_WORD} says {has}"
        return ""

    def check(self, commit: Commit, digest: str | None = None) -> ImageReference:
        """Check a commit's image before a deploy (I2).

        Args:
            commit: the commit that it must be built from.
            digest: sha256:…, where the caller already knows which image it means.

        Returns:
            The reference by digest.

        Raises:
            UsageError: the registry has no such image.
            Refused: the tag or the digest belongs to another commit, the image lacks a label that
                `build` writes, or it is not for the environment's platform.
        """
        found = self.find(commit)
        where = self._pipeline.where
        if digest is not None:
            self._is_of(commit, digest, found)
        if found is None:
            raise UsageError(
                f"{self.repository} has no image of commit {commit.short}", f"./ship build {where}"
            )
        resolved = found.resolved
        if self.platform not in resolved.platforms:
            raise Refused(self._other_platform(found), self._away(found.reference))
        if reason := self.unfit(commit, found):
            tag = self.repository.by_tag(commit.sha)
            raise Refused(f"{tag} is not commit {commit.short}'s image: {reason}", self._away(tag))
        return found.reference

    def _is_of(self, commit: Commit, digest: str, found: Found | None) -> None:
        """Refuse a digest that is not the commit's image."""
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise UsageError(f"--digest {digest}: not a digest: sha256: and 64 hexadecimal digits")
        if found and found.resolved.digest == digest:
            return
        there = self._registry.resolve(self.repository.path, digest)
        if there is None:
            raise UsageError(
                f"--digest {digest}: {self.repository} has no such image",
                f"./ship build {self._pipeline.where} prints the digest of the commit's image",
            )
        revision = there.labels.get(_REVISION, "")
        says = (
            f"the tag {commit.sha} names {found.resolved.digest}"
            if found
            else f"there is no tag {commit.sha}"
        )
        raise Refused(
            f"--digest {digest} is not the image of commit {commit.short}: {says}",
            f"it was built from {revision}: --commit {revision}"
            if revision and revision != commit.sha
            else "leave --digest out to deliver the commit's own image",
        )

    def _other_platform(self, found: Found) -> str:
        """Return why the image cannot run, in Cloud Run's own words, which people search for."""
        env, wanted = self._pipeline.env, self.platform
        has = ", ".join(found.resolved.platforms) or "no platform"
        text = f"{found.reference} is for {has}; {env} takes {wanted}"
        if wanted != "linux/amd64":
            return text
        return (
            f"{text}: Container manifest type '{found.resolved.media_type}' must support"
            " amd64/linux. Was it built on an Arm laptop, without ./ship build?"
        )

    def _away(self, reference: ImageReference) -> str:
        """Return how to delete a wrong image, or a wrong tag alone, and build the right one."""
        again = f"./ship build {self._pipeline.where}, which builds for {self.platform} anywhere"
        if not reference.host.endswith("-docker.pkg.dev"):
            return f"delete {reference} from the registry; then {again}"
        what = f"images delete {reference} --delete-tags"
        if reference.tag:
            what = f"tags delete {reference}"  # the image itself belongs to another commit
        return f"gcloud artifacts docker {what}; then {again}"

    def require_dockerfile(self, commit: Commit) -> None:
        """Raise UsageError if the folder has no Dockerfile."""
        pipeline = self._pipeline
        if (self._source / "Dockerfile").is_file():
            return
        folder = self._source.relative_to(pipeline.root)
        hint = f"pipelines/{pipeline.service}/ delivers the folder {folder}/"
        if self._word != APP:
            file = f"pipelines/{pipeline.service}/service.yaml"
            hint = f"{file} builds the image {self._word} from it ({SOURCE}.{self._word})"
        raise UsageError(f"{folder}/Dockerfile: no such file in commit {commit.short}", hint)

    def build(
        self,
        commit: Commit,
        builder: str,
        say: Callable[[str], None],
        instead_of: Found | None = None,
    ) -> ImageReference:
        """Build and push. A dry run does neither.

        Args:
            commit: what to build.
            builder: "docker" or "cloud-build".
            say: called with each step.
            instead_of: the image that has the commit's tag and does not count.

        Returns:
            The reference by digest; by tag in a dry run.

        Raises:
            UsageError: no engine answers.
            Failed: the build or the push fails, or the registry has another image afterwards.
        """
        tag = self.repository.by_tag(commit.sha)
        if self._google.dry_run:
            return tag
        make = self._with_docker if builder == "docker" else self._with_cloud_build
        try:
            digest = make(commit, say)
        except Failed as failed:
            # Two builds of one commit may run at once. If tags are immutable, one push fails. Any
            # other error is this build's own, even if the registry has an image by now.
            if not _is_kept_out(failed):
                raise
            there = self.find(commit)
            if there is None or there == instead_of or self.unfit(commit, there):
                raise self._kept_out(commit, instead_of, failed) from None
            say("someone else has pushed it in the meantime")
            return there.reference
        pushed = self.find(commit)
        if pushed is None or pushed.resolved.digest != digest:
            has = pushed.resolved.digest if pushed else "no image"
            raise Failed(
                f"{builder} pushed {digest} to {tag}, but the registry has {has} there",
                f"./ship build {self._pipeline.where}",
            )
        return pushed.reference

    @property
    def _shared(self) -> dict[str, str]:
        """The shared folders that the Dockerfile can copy from: name → path in the repository."""
        return relations.read(self._pipeline.root).contexts(self._pipeline.service)

    def _with_docker(self, commit: Commit, say: Callable[[str], None]) -> str:
        """Build and push with Docker; return the digest that it reports."""
        from scripts.image import docker_login, inline_cache
        from scripts.image.buildx import Builder

        pipeline = self._pipeline
        source, labels = self._source, self._labels(commit)
        token = self._google.token(self._registry_url)
        with docker_login.environment(self.repository.host, token) as environment:
            docker = Builder(environment)
            path = docker.cache_repository(self.repository).path
            earlier = self._earlier(commit, path, docker.is_engine, say)
            if docker.is_engine and earlier:
                labels = {**labels, inline_cache.LABEL: " ".join(earlier)}
            what = f"image {self.name}:{commit.short}"
            write = Write(what=what, request="docker buildx build --push")
            self._google.writes.append(write)
            try:
                digest = docker.build(
                    source,
                    dockerfile=source / "Dockerfile",
                    repository=self.repository,
                    platform=self.platform,
                    commit=commit.sha,
                    earlier=earlier,
                    labels=labels,
                    contexts={name: pipeline.root / path for name, path in self._shared.items()},
                    progress=say,
                )
            except Failed:
                write.outcome = "refused"
                raise
        write.outcome = "done"
        return digest

    def _with_cloud_build(self, commit: Commit, say: Callable[[str], None]) -> str:
        """Build and push with Cloud Build; return the digest that it reports."""
        from scripts.image.buildx import EPOCH
        from scripts.image.cloud_build import CloudBuild

        pipeline, environment = self._pipeline, self._pipeline.environment
        earlier = self._earlier(commit, self.repository.path, True, say)
        build = CloudBuild(
            self._google,
            # The project of the images, where the account that pushes is, too.
            self.repository.path.partition("/")[0],
            environment.regions[0],
            environment.builds_as,
        )
        return build.build(
            self._source,
            self._source.relative_to(pipeline.root).as_posix(),
            image=self.repository.by_tag(commit.sha),
            what=f"image {self.name}:{commit.short}",
            platform=self.platform,
            arguments={"COMMIT_SHA": commit.sha, "SOURCE_DATE_EPOCH": str(EPOCH)},
            labels=self._labels(commit),
            shared={n: (pipeline.root / path, path) for n, path in self._shared.items()},
            earlier=[self.repository.by_tag(sha) for sha in earlier],
            progress=say,
        )

    def _kept_out(self, commit: Commit, instead_of: Found | None, failed: Failed) -> Failed:
        """Return a failed push's error; say how to free the tag if an image that has it stays.

        Artifact Registry deletes no tag while tags are immutable:
        https://cloud.google.com/artifact-registry/docs/docker/manage-images#immutable-tags
        """
        if instead_of is None or self.find(commit) != instead_of:
            return failed
        tag = self.repository.by_tag(commit.sha)
        hint = f"make a new commit, or delete {tag}; if its tags are immutable, allow that first"
        location, google, _ = tag.host.partition("-docker.pkg.dev")
        if google:
            project, name, _ = tag.path.split("/", 2)
            update = f"gcloud artifacts repositories update {name}"
            where = f"--project={project} --location={location}"
            hint = (
                f"make a new commit; or, to build this one, {update} {where} --no-immutable-tags"
                f" && gcloud artifacts docker tags delete {tag}"
                f" && {update} {where} --immutable-tags"
            )
        return Failed(
            f"{tag} names {instead_of.resolved.digest}, which does not count,"
            f" and cannot be replaced: {failed.message}",
            hint,
            evidence=failed.evidence,
        )

    def _earlier(
        self, commit: Commit, path: str, inline: bool, say: Callable[[str], None]
    ) -> list[str]:
        """Return the earlier commits whose layers can be reused, nearest first.

        Args:
            commit: the commit that is built.
            path: the repository that has the layers.
            inline: whether the layers are those of the images themselves.
            say: called with the commit.
        """
        from scripts.image import inline_cache

        commits = git.ancestors(self._root, commit, _ANCESTORS)
        for sha in commits:
            if self._registry.has(path, sha):
                say(f"reusing layers of commit {sha[:7]}")
                return inline_cache.sources(self._registry, path, sha) if inline else [sha]
        if not commits:
            say("no layers to reuse: git knows no earlier commit here")
        return []

    def manifests(self, image: ImageReference) -> tuple[str, ...]:
        """Return the digests of the images that a reference by digest names: those of an index."""
        resolved = self._registry.resolve(image.path, image.digest)
        return resolved.manifests if resolved else ()

    def attestations(self, image: ImageReference) -> list[str]:
        """Return the predicate types of an image's attestations: provenance, contents (SBOM)."""
        return self._registry.attestations(image.path, image.digest)

    def bundles(self, image: ImageReference) -> Iterator[bytes]:
        """Yield the Sigstore bundles that are attached to an image. They may be anyone's."""
        return self._registry.bundles(image.path, image.digest)

    def attach(self, image: ImageReference, bundle: bytes, predicate: str) -> bool:
        """Attach a Sigstore bundle to an image; return False if it was attached before."""
        return self._registry.attach(image.path, image.digest, bundle, predicate)

    @property
    def _source(self) -> Path:
        return self._pipeline.sources[self._word]

    def _labels(self, commit: Commit) -> dict[str, str]:
        """Return the image's labels.

        Source: https://github.com/opencontainers/image-spec/blob/main/annotations.md
        """
        labels = {
            _REVISION: commit.sha,
            "org.opencontainers.image.created": datetime.fromtimestamp(
                commit.time, UTC
            ).isoformat(),
        }
        if self._word != APP:
            labels[_WORD] = self._word
        return {**labels, _SOURCE: self._origin} if self._origin else labels


def _is_kept_out(failed: Failed) -> bool:
    """Return whether a push failed because the tag exists and tags are immutable.

    Registries tell it in words only: "The repository has enabled tag immutability" (Artifact
    Registry), "cannot be overwritten because the repository is immutable" (Amazon's).
    """
    return any("immutab" in line for line in (failed.message, *failed.evidence))
