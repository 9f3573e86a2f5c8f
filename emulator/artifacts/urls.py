"""The routes of Artifact Registry's own API."""

from __future__ import annotations

from collections.abc import Callable

from emulator.artifacts.models import Artifacts
from emulator.artifacts.repositories import Repositories
from emulator.artifacts.responses import Responses
from emulator.operations import Operations
from emulator.permissions import CALLER, Asks, On
from emulator.routes import Route

_LOCATION = "/v1/projects/{project}/locations/{location}"
_REPOSITORIES = f"{_LOCATION}/repositories"
_REPOSITORY = f"{_REPOSITORIES}/{{repository:[^/:]+}}"
_IMAGES = f"{_REPOSITORY}/dockerImages"
_PACKAGES = f"{_REPOSITORY}/packages"
_PACKAGE = f"{_PACKAGES}/{{package}}"
_VERSIONS, _TAGS = f"{_PACKAGE}/versions", f"{_PACKAGE}/tags"
# Names of resources, as refusals write them.
_IN_LOCATION = "projects/{project}/locations/{location}"
_NAMED = f"{_IN_LOCATION}/repositories/{{repository}}"


def routes(
    artifacts: Artifacts,
    repositories: Repositories,
    operations: Operations,
    forget: Callable[[str, str], None],
) -> list[Route]:
    """Return Artifact Registry's routes.

    `forget(project, repository)` drops the policy of a deleted repository.
    """
    answer = Responses(artifacts, repositories, operations, forget)
    lists = Asks("artifactregistry.repositories.list", On.PROJECT, _IN_LOCATION)
    creates = Asks("artifactregistry.repositories.create", On.PROJECT, _IN_LOCATION)
    operation = f"{_LOCATION}/operations/{{operation:ar-[^/:]+}}"
    image, version, tag = f"{_IMAGES}/{{image}}", f"{_VERSIONS}/{{version}}", f"{_TAGS}/{{tag}}"

    def on(permission: str) -> Asks:
        return Asks(f"artifactregistry.{permission}", On.REPOSITORY, _NAMED)

    return [
        Route("GET", _REPOSITORIES, answer.repositories, lists),
        Route("POST", _REPOSITORIES, answer.create_repository, creates),
        Route("GET", operation, answer.operation, CALLER),
        Route("GET", _REPOSITORY, answer.repository, on("repositories.get")),
        Route("PATCH", _REPOSITORY, answer.patch_repository, on("repositories.update")),
        Route("DELETE", _REPOSITORY, answer.delete_repository, on("repositories.delete")),
        Route("GET", _IMAGES, answer.docker_images, on("dockerimages.list")),
        Route("GET", image, answer.docker_image, on("dockerimages.get")),
        Route("GET", _PACKAGES, answer.packages, on("packages.list")),
        Route("GET", _PACKAGE, answer.package, on("packages.get")),
        Route("DELETE", _PACKAGE, answer.delete_package, on("packages.delete")),
        Route("GET", _VERSIONS, answer.versions, on("versions.list")),
        Route("GET", version, answer.version, on("versions.get")),
        Route("DELETE", version, answer.delete_version, on("versions.delete")),
        Route("GET", _TAGS, answer.tags, on("tags.list")),
        Route("DELETE", tag, answer.delete_tag, on("tags.delete")),
    ]
