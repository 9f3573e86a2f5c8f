"""The wire format of blobs and of their uploads.

Bytes go from the socket to the disk in pieces of a few megabytes: while a thread hashes and writes
one piece, the event loop reads the next one and serves other requests.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from emulator.registry.errors import OciError, RangeInvalid
from emulator.registry.models import Registry
from emulator.registry.names import checked_name
from emulator.registry.responses import upload_headers
from emulator.registry.uploads import Upload

_PIECE = 4 * 1024 * 1024  # bytes
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?")


class BlobResponses:
    """Handlers for blobs and uploads."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET or HEAD a blob, or a Range of it."""
        digest = request.match_info["digest"]
        path = await asyncio.to_thread(self._registry.blob, request.match_info["name"], digest)
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        return web.FileResponse(path, chunk_size=1024 * 1024, headers=headers)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE a blob from the repository."""
        path = request.match_info
        await asyncio.to_thread(self._registry.delete_blob, path["name"], path["digest"])
        return web.Response(status=202)

    async def start(self, request: web.Request) -> web.Response:
        """POST: mount a blob, receive it whole (`digest`), or open an upload session for it."""
        name = checked_name(request.match_info["name"])
        mount, source = request.query.get("mount"), request.query.get("from")
        if mount and source:
            if await asyncio.to_thread(self._registry.mount_blob, name, mount, source):
                return _created(name, mount)
        elif "digest" in request.query:
            upload = await asyncio.to_thread(self._registry.start_upload, name)
            try:
                await _receive(request, upload)
            except BaseException:
                await asyncio.to_thread(self._registry.cancel_upload, upload)
                raise
            return await self._finish(upload, request.query["digest"])
        upload = await asyncio.to_thread(self._registry.start_upload, name)
        return web.Response(status=202, headers=upload_headers(request, upload.id, 0))

    async def status(self, request: web.Request) -> web.Response:
        """GET the number of bytes that an upload has received."""
        upload = self._upload(request)
        return web.Response(status=204, headers=upload_headers(request, upload.id, upload.size))

    async def append(self, request: web.Request) -> web.Response:
        """PATCH: receive one more chunk, or the whole blob as a stream."""
        upload = self._upload(request)
        await self._take(request, upload)
        return web.Response(status=202, headers=upload_headers(request, upload.id, upload.size))

    async def complete(self, request: web.Request) -> web.Response:
        """PUT: receive the last chunk, if any, and the digest of the whole blob."""
        upload = self._upload(request)
        digest = request.query.get("digest")
        if digest is None:
            raise OciError("DIGEST_INVALID", "the digest parameter is missing")
        await self._take(request, upload)
        return await self._finish(upload, digest)

    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE: cancel an upload."""
        upload = self._upload(request)
        _refuse_if_busy(upload)
        await asyncio.to_thread(self._registry.cancel_upload, upload)
        return web.Response(status=204)

    def _upload(self, request: web.Request) -> Upload:
        return self._registry.upload(request.match_info["name"], request.match_info["upload"])

    async def _take(self, request: web.Request, upload: Upload) -> None:
        """Append the request's body. A disk error ends the session: its hash is no longer valid."""
        _refuse_if_busy(upload)
        expected = _announced_size(request, upload)
        before = upload.size
        upload.busy = True
        try:
            await _receive(request, upload)
        except OSError as error:
            # A client that lost its connection may ask for the size and continue from there.
            if not isinstance(error, ConnectionError):
                await asyncio.to_thread(self._registry.cancel_upload, upload)
            raise
        finally:
            upload.busy = False
        if expected is not None and upload.size - before != expected:
            await asyncio.to_thread(self._registry.cancel_upload, upload)
            detail = {"announced": expected, "received": upload.size - before}
            raise OciError(
                "SIZE_INVALID", "the chunk does not have the length in Content-Range", detail
            )

    async def _finish(self, upload: Upload, digest: str) -> web.Response:
        await asyncio.to_thread(self._registry.complete_upload, upload, digest)
        return _created(upload.name, digest)


async def _receive(request: web.Request, upload: Upload) -> None:
    """Append the request's body to the upload, reading one piece while writing another."""
    piece = bytearray()
    writing: asyncio.Future[None] | None = None
    try:
        async for data in request.content.iter_any():
            piece += data
            if len(piece) >= _PIECE:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(asyncio.to_thread(upload.write, piece))
                piece = bytearray()
    finally:
        if writing is not None:
            await writing
        if piece:
            await asyncio.to_thread(upload.write, piece)


def _announced_size(request: web.Request, upload: Upload) -> int | None:
    """Return the number of bytes that Content-Range announces; None without the header.

    Raises:
        RangeInvalid: The chunk does not start at the upload's current size.
    """
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        raise RangeInvalid(upload.id, upload.size, header)
    first, last = int(match[1]), int(match[2])
    if first != upload.size or last < first:
        raise RangeInvalid(upload.id, upload.size, header)
    return last - first + 1


def _refuse_if_busy(upload: Upload) -> None:
    if upload.busy:
        message = "another request is writing to this upload"
        raise OciError("BLOB_UPLOAD_INVALID", message, {"upload": upload.id}, status=409)


def _created(name: str, digest: str) -> web.Response:
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)
