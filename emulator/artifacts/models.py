"""The images of a repository as Artifact Registry's API has them, without HTTP.

Source: https://cloud.google.com/artifact-registry/docs/reference/rest and the discovery document
`artifactregistry.v1`. A package is the name of an image in a repository, a version is one of its
manifests. Images have no location here: every location has all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from emulator import clock
from emulator.artifacts.repositories import Repositories, Repository, missing
from emulator.errors import ApiError
from emulator.registry.errors import OciError
from emulator.registry.models import Manifest, Registry
from emulator.registry.names import is_digest

Document = dict[str, Any]


class Artifacts:
    """The packages, versions, tags and Docker images of every repository.

    Every method blocks on the disk. Methods that fail raise ApiError; the docstrings name its
    status.
    """

    def __init__(self, registry: Registry, repositories: Repositories) -> None:
        self._registry = registry
        self._repositories = repositories

    def repository(self, repository: Repository) -> Document:
        """Return a repository that was created or holds an image; raise NOT_FOUND."""
        host = f"{repository.location}-docker.pkg.dev/{repository.project}/{repository.name}"
        if made := self._repositories.get(repository):
            return {**made, "registryUri": host}
        others = self._repositories.has_others(repository.project)
        if not others or not any(self._names(repository)):
            raise missing(repository)
        return {
            "name": repository.path,
            "format": "DOCKER",
            "mode": "STANDARD_REPOSITORY",
            "registryUri": host,
        }

    def delete_repository(self, repository: Repository) -> None:
        """Delete a repository and every image in it; raise NOT_FOUND."""
        self.repository(repository)
        if self._repositories.get(repository):
            self._repositories.delete(repository)
        for name in [*self._names(repository)]:
            for at, digest in self._held(repository, name):
                self._registry.delete_manifest(at, digest)

    def packages(self, repository: Repository) -> list[Document]:
        """Return a Package for each name of an image, sorted."""
        return [self.package(repository, name) for name in self._names(repository)]

    def package(self, repository: Repository, name: str) -> Document:
        """Return one Package; raise NOT_FOUND."""
        times = [self._registry.pushed(at, digest) for at, digest in self._held(repository, name)]
        return {
            "name": _package_path(repository, name),
            "createTime": clock.at(min(times)),
            "updateTime": clock.at(max(times)),
        }

    def docker_images(self, repository: Repository) -> list[Document]:
        """Return a DockerImage for each manifest, sorted by name."""
        return [
            self._docker_image(repository, name, digest)
            for name in self._names(repository)
            for _, digest in self._held(repository, name)
        ]

    def docker_image(self, repository: Repository, image: str) -> Document:
        """Return the DockerImage `NAME@DIGEST`; raise NOT_FOUND."""
        name, _, digest = image.partition("@")
        self._manifest(repository, name, digest)
        return self._docker_image(repository, name, digest)

    def versions(self, repository: Repository, package: str, *, full: bool) -> list[Document]:
        """Return a Version for each manifest of a package, with its tags if `full`.

        Raises:
            ApiError: NOT_FOUND.
        """
        held = self._held(repository, package)
        return [self.version(repository, package, digest, full=full) for _, digest in held]

    def version(self, repository: Repository, package: str, digest: str, *, full: bool) -> Document:
        """Return one Version, with its tags if `full`; raise NOT_FOUND."""
        self._manifest(repository, package, digest)
        image = self._docker_image(repository, package, digest)
        kept = ("imageSizeBytes", "mediaType", "buildTime", "imageManifests")
        version = {
            "name": f"{_package_path(repository, package)}/versions/{digest}",
            "createTime": image["uploadTime"],
            "updateTime": image["updateTime"],
            "metadata": {
                "name": image["name"],
                **{field: image[field] for field in kept if field in image},
            },
        }
        if full:
            tags = image.get("tags", [])
            version["relatedTags"] = [_tag(repository, package, tag, digest) for tag in tags]
        return version

    def tags(self, repository: Repository, package: str) -> list[Document]:
        """Return a Tag for each tag of a package, sorted; raise NOT_FOUND."""
        self._held(repository, package)
        at = f"{repository.project}/{repository.name}/{package}"
        return [
            _tag(repository, package, tag, self._registry.manifest(at, tag).digest)
            for tag in self._registry.tags(at)
        ]

    def delete_package(self, repository: Repository, package: str) -> None:
        """Delete every version and tag of a package; raise NOT_FOUND or FAILED_PRECONDITION."""
        self._check_mutable(repository, package)
        for at, digest in self._held(repository, package):
            self._registry.delete_manifest(at, digest)

    def delete_version(
        self, repository: Repository, package: str, digest: str, *, force: bool
    ) -> None:
        """Delete a version.

        Raises:
            ApiError: NOT_FOUND, or FAILED_PRECONDITION if it has tags and `force` is not set.
        """
        at, _ = self._manifest(repository, package, digest)
        if self._registry.tags_of(at, digest) and not force:
            message = f"cannot delete version {digest}: it is tagged; delete its tags, or use force"
            raise ApiError("FAILED_PRECONDITION", message)
        if self._registry.tags_of(at, digest):
            self._check_mutable(repository, package)
        self._registry.delete_manifest(at, digest)

    def delete_tag(self, repository: Repository, package: str, tag: str) -> None:
        """Delete a tag but not its version; raise NOT_FOUND or FAILED_PRECONDITION."""
        at, _ = self._manifest(repository, package, tag, tag=True)
        self._check_mutable(repository, package)
        self._registry.delete_manifest(at, tag)

    def _check_mutable(self, repository: Repository, package: str) -> None:
        if self._repositories.is_immutable(f"{repository.project}/{repository.name}/{package}"):
            message = "cannot delete tag. The repository has enabled tag immutability"
            raise ApiError("FAILED_PRECONDITION", message)

    def _names(self, repository: Repository) -> Iterator[str]:
        home = f"{repository.project}/{repository.name}/"
        for at in self._registry.repositories():
            if at.startswith(home):
                yield at.removeprefix(home)

    def _held(self, repository: Repository, package: str) -> list[tuple[str, str]]:
        """Return the registry's name of a package with each of its digests; raise NOT_FOUND."""
        at = f"{repository.project}/{repository.name}/{package}"
        try:
            digests = self._registry.digests(at)
        except OciError:
            digests = []
        if not digests:
            path = _package_path(repository, package)
            raise ApiError("NOT_FOUND", f'Package "{path}" was not found.')
        return [(at, digest) for digest in digests]

    def _manifest(
        self, repository: Repository, package: str, reference: str, *, tag: bool = False
    ) -> tuple[str, Manifest]:
        at = f"{repository.project}/{repository.name}/{package}"
        try:
            if tag == is_digest(reference):
                raise OciError("MANIFEST_UNKNOWN", "not a reference of the requested kind")
            return at, self._registry.manifest(at, reference)
        except OciError:
            path = f"{_package_path(repository, package)}/versions/{reference}"
            raise ApiError("NOT_FOUND", f'Version "{path}" was not found.') from None

    def _docker_image(self, repository: Repository, name: str, digest: str) -> Document:
        at, manifest = self._manifest(repository, name, digest)
        parsed = manifest.json()
        pushed = self._registry.pushed(at, digest)
        tags = self._registry.tags_of(at, digest)
        tagged = [self._registry.tagged(at, tag) for tag in tags]
        host = f"{repository.location}-docker.pkg.dev"
        blobs = [*parsed.get("layers", []), *([parsed["config"]] if "config" in parsed else [])]
        image: Document = {
            "name": f"{repository.path}/dockerImages/{quote(name, safe='')}@{digest}",
            "uri": f"{host}/{at}@{digest}",
            "imageSizeBytes": str(sum(blob.get("size", 0) for blob in blobs)),
            "uploadTime": clock.at(pushed),
            "mediaType": manifest.media_type,
            "updateTime": clock.at(max([pushed, *tagged])),
        }
        if tags:
            image["tags"] = tags
        if built := self._built(at, parsed):
            image["buildTime"] = built
        if parsed.get("manifests"):
            image["imageManifests"] = [_child(entry) for entry in parsed["manifests"]]
        return image

    def _built(self, at: str, parsed: Document) -> str | None:
        """Return the time of an image's build by its config; None if the config has none."""
        try:
            config = json.loads(self._registry.blob(at, parsed["config"]["digest"]).read_bytes())
            return clock.rfc3339(clock.moment(config["created"]))
        except (OciError, KeyError, TypeError, ValueError, RecursionError):
            return None


def _child(entry: Document) -> Document:
    platform = entry.get("platform") or {}
    fields = {
        "architecture": platform.get("architecture"),
        "os": platform.get("os"),
        "variant": platform.get("variant"),
        "digest": entry.get("digest"),
        "mediaType": entry.get("mediaType"),
    }
    return {name: value for name, value in fields.items() if value}


def _package_path(repository: Repository, package: str) -> str:
    return f"{repository.path}/packages/{quote(package, safe='')}"


def _tag(repository: Repository, package: str, tag: str, digest: str) -> Document:
    path = _package_path(repository, package)
    return {"name": f"{path}/tags/{tag}", "version": f"{path}/versions/{digest}"}
