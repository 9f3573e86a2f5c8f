"""The registry's routes (OCI distribution specification, "Endpoints").

There is no catch-all below `/v2/`, because other APIs have paths there (Cloud Logging's
`/v2/entries:list`).
"""

from __future__ import annotations

from emulator.permissions import Asks, On
from emulator.registry.blob_responses import BlobResponses
from emulator.registry.models import Registry
from emulator.registry.responses import ManifestResponses, answering, unsupported, version
from emulator.routes import Route

_UPLOADS = "/v2/{name:.+}/blobs/uploads/"
_UPLOAD = "/v2/{name:.+}/blobs/uploads/{upload}"
_BLOB = "/v2/{name:.+}/blobs/{digest}"
_MANIFEST = "/v2/{name:.+}/manifests/{reference}"

_PULL = Asks("artifactregistry.repositories.downloadArtifacts", On.IMAGE)
_PUSH = Asks("artifactregistry.repositories.uploadArtifacts", On.IMAGE)
_DELETE = Asks("artifactregistry.repositories.deleteArtifacts", On.IMAGE)
# These answers reveal nothing about any repository: they need a token but no permission.
_NO_IMAGE = Asks("", On.IMAGE)


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
