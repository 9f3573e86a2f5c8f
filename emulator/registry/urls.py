"""Which requests the registry answers (OCI distribution specification, "Endpoints").

There is no catch-all below `/v2/`: other APIs have paths there (Cloud Logging's
`/v2/entries:list`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from emulator.registry.blob_responses import BlobResponses
from emulator.registry.responses import ManifestResponses, answering, unsupported, version

if TYPE_CHECKING:
    from emulator.registry.models import Registry

_UPLOADS = "/v2/{name:.+}/blobs/uploads/"
_UPLOAD = "/v2/{name:.+}/blobs/uploads/{upload}"
_BLOB = "/v2/{name:.+}/blobs/{digest}"
_MANIFEST = "/v2/{name:.+}/manifests/{reference}"


def routes(registry: Registry) -> list[web.RouteDef]:
    """The registry's routes. To aiohttp, `GET` is `HEAD` too."""
    blobs, manifests = BlobResponses(registry), ManifestResponses(registry)
    table = [
        ("GET", "/v2/", version),
        ("POST", _UPLOADS, blobs.start),
        ("GET", _UPLOAD, blobs.status),
        ("PATCH", _UPLOAD, blobs.append),
        ("PUT", _UPLOAD, blobs.complete),
        ("DELETE", _UPLOAD, blobs.cancel),
        ("GET", _BLOB, blobs.get),
        ("DELETE", _BLOB, blobs.delete),
        ("GET", _MANIFEST, manifests.get),
        ("PUT", _MANIFEST, manifests.put),
        ("DELETE", _MANIFEST, manifests.delete),
        ("GET", "/v2/{name:.+}/tags/list", manifests.tags),
        ("GET", "/v2/{name:.+}/referrers/{digest}", manifests.referrers),
    ]
    served = [
        web.route(method, path, answering(handler, registry)) for method, path, handler in table
    ]
    paths = dict.fromkeys(path for _, path, _ in table)
    return [*served, *(web.route("*", path, answering(unsupported, registry)) for path in paths)]
