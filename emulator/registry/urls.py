"""Which requests the registry answers, and which belong to Artifact Registry's own API.

The registry's are those of the OCI distribution specification, "Endpoints". There is no catch-all
below `/v2/`: other APIs have paths there (Cloud Logging's `/v2/entries:list`).
"""

from __future__ import annotations

from emulator.registry.artifact_responses import ArtifactResponses
from emulator.registry.blob_responses import BlobResponses
from emulator.registry.models import Registry
from emulator.registry.responses import ManifestResponses, answering, unsupported, version
from emulator.routes import CALLER, Asks, On, Route

_UPLOADS = "/v2/{name:.+}/blobs/uploads/"
_UPLOAD = "/v2/{name:.+}/blobs/uploads/{upload}"
_BLOB = "/v2/{name:.+}/blobs/{digest}"
_MANIFEST = "/v2/{name:.+}/manifests/{reference}"

_PULL = Asks("artifactregistry.repositories.downloadArtifacts", On.IMAGE)
_PUSH = Asks("artifactregistry.repositories.uploadArtifacts", On.IMAGE)
_DELETE = Asks("artifactregistry.repositories.deleteArtifacts", On.IMAGE)
# Answers that tell nothing of any repository: a token is needed, and no permission.
_NO_IMAGE = Asks("", On.IMAGE)

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


def routes(registry: Registry) -> list[Route]:
    """Return the registry's routes."""
    blobs, manifests = BlobResponses(registry), ManifestResponses(registry)
    table = [
        ("GET", "/v2/", version, _NO_IMAGE),
        ("POST", _UPLOADS, blobs.start, _PUSH),
        ("GET", _UPLOAD, blobs.status, _PUSH),
        ("PATCH", _UPLOAD, blobs.append, _PUSH),
        ("PUT", _UPLOAD, blobs.complete, _PUSH),
        ("DELETE", _UPLOAD, blobs.cancel, _PUSH),
        ("GET", _BLOB, blobs.get, _PULL),
        ("DELETE", _BLOB, blobs.delete, _DELETE),
        ("GET", _MANIFEST, manifests.get, _PULL),
        ("PUT", _MANIFEST, manifests.put, _PUSH),
        ("DELETE", _MANIFEST, manifests.delete, _DELETE),
        ("GET", "/v2/{name:.+}/tags/list", manifests.tags, _PULL),
        ("GET", "/v2/{name:.+}/referrers/{digest}", manifests.referrers, _PULL),
    ]
    paths = dict.fromkeys(path for _, path, _, _ in table)
    table += [("*", path, unsupported, _NO_IMAGE) for path in paths]
    return [
        Route(method, path, answering(handler, registry), asks)
        for method, path, handler, asks in table
    ]


def artifact_routes(answer: ArtifactResponses) -> list[Route]:
    """Return the routes of Artifact Registry's API."""
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
