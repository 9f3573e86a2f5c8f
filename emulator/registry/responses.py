"""The wire format of manifests, tags, referrers and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from emulator.registry.errors import OciError, RangeInvalid
from emulator.registry.models import Registry
from emulator.registry.names import is_digest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
# The specification asks registries to accept manifests of at least this size, and to refuse larger
# ones with 413.
_LONGEST_NUMBER = 10  # digits of a page's size
_LARGEST_MANIFEST = 4 * 1024 * 1024  # bytes


def answering(handler: Handler, registry: Registry) -> Handler:
    """Return `handler` with its errors turned into the specification's error bodies.

    The returned handler refuses every request for a repository that does not exist.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            if registry.rules and "name" in request.match_info:
                registry.rules.check_name(request.match_info["name"])
            return await handler(request)
        except OciError as error:
            entry: dict[str, Any] = {"code": error.code, "message": error.message}
            if error.detail is not None:
                entry["detail"] = error.detail
            headers = dict(_VERSION)
            if isinstance(error, RangeInvalid):
                headers |= upload_headers(request, error.upload_id, error.size)
            return web.json_response({"errors": [entry]}, status=error.status, headers=headers)

    return answer


def upload_headers(request: web.Request, upload_id: str, size: int) -> dict[str, str]:
    """Return the headers for continuing an upload of `size` bytes so far."""
    return {
        "Location": f"/v2/{request.match_info['name']}/blobs/uploads/{upload_id}",
        # The range is inclusive and cannot express "empty". The reference implementation answers
        # 0-0, too.
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-Uuid": upload_id,
    }


async def version(_request: web.Request) -> web.Response:
    """GET /v2/: confirm that this is a registry."""
    return web.json_response({}, headers=_VERSION)


async def unsupported(request: web.Request) -> web.Response:
    """Refuse a method that the specification does not define for this path."""
    detail = {"method": request.method}
    raise OciError("UNSUPPORTED", "the operation is unsupported", detail)


class ManifestResponses:
    """Handlers for manifests, tags and referrers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, request: web.Request) -> web.Response:
        """GET or HEAD a manifest by tag or digest, exactly as it was pushed."""
        path = request.match_info
        manifest = await asyncio.to_thread(self._registry.manifest, path["name"], path["reference"])
        headers = {
            "Content-Type": manifest.media_type,
            "Docker-Content-Digest": manifest.digest,
            "Etag": f'"{manifest.digest}"',
        }
        return web.Response(body=manifest.contents, headers=_VERSION | headers)

    async def put(self, request: web.Request) -> web.Response:
        """PUT a manifest under a tag or its digest."""
        path = request.match_info
        contents = await _limited_body(request)
        media_type = request.headers.get("Content-Type")
        if not media_type:
            raise OciError("MANIFEST_INVALID", "a manifest needs a Content-Type")
        digest, subject = await asyncio.to_thread(
            self._registry.put_manifest, path["name"], path["reference"], media_type, contents
        )
        headers = {
            "Location": f"/v2/{path['name']}/manifests/{digest}",
            "Docker-Content-Digest": digest,
        }
        if subject:
            headers["Oci-Subject"] = subject
        return web.Response(status=201, headers=_VERSION | headers)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE a tag, or a manifest together with its tags."""
        path = request.match_info
        if self._registry.rules and not is_digest(path["reference"]):
            self._registry.rules.check_tag(path["name"], path["reference"], verb="delete")
        await asyncio.to_thread(self._registry.delete_manifest, path["name"], path["reference"])
        return web.Response(status=202, headers=_VERSION)

    async def tags(self, request: web.Request) -> web.Response:
        """GET the tags after `last`, at most `n` of them."""
        name = request.match_info["name"]
        tags = await asyncio.to_thread(self._registry.tags, name)
        last = request.query.get("last")
        if last is not None:
            mark = (last.lower(), last)
            tags = [tag for tag in tags if (tag.lower(), tag) > mark]
        headers = dict(_VERSION)
        limit = request.query.get("n")
        if limit is not None:
            if not limit.isdecimal() or len(limit) > _LONGEST_NUMBER:
                raise OciError("PAGINATION_NUMBER_INVALID", "n is not a number", {"n": limit})
            page, rest = tags[: int(limit)], tags[int(limit) :]
            if page and rest:
                query = urlencode({"n": limit, "last": page[-1]})
                headers["Link"] = f'</v2/{name}/tags/list?{query}>; rel="next"'
            tags = page
        return web.json_response({"name": name, "tags": tags}, headers=headers)

    async def referrers(self, request: web.Request) -> web.Response:
        """GET an index of the manifests whose subject is this digest."""
        path = request.match_info
        found = await asyncio.to_thread(self._registry.referrers, path["name"], path["digest"])
        headers = _VERSION | {"Content-Type": _OCI_INDEX}
        artifact_type = request.query.get("artifactType")
        if artifact_type is not None:
            found = [entry for entry in found if entry.get("artifactType") == artifact_type]
            headers["Oci-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": found}
        return web.Response(body=json.dumps(index), headers=headers)


async def _limited_body(request: web.Request) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_MANIFEST:
            message = f"a manifest may have {_LARGEST_MANIFEST} bytes"
            raise OciError("MANIFEST_INVALID", message, status=413)
    return bytes(body)
