"""Cloud Storage's JSON API on the wire: buckets, and objects with the three kinds of upload.

Sources: the discovery document storage.v1,
https://cloud.google.com/storage/docs/uploading-objects-from-memory (media and multipart) and
https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from emulator.cloud_storage import errors
from emulator.cloud_storage.models import Buckets, NotCurrent, Receiving, Stored, TooLarge
from emulator.errors import ApiError, invalid
from emulator.routes import Handler, may
from emulator.wire import json_object, page, page_size

_PIECE = 1 << 20  # bytes
_PAGE = 1000
_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")
_RESUME = 308
_BOUNDARY = re.compile(r"(?i)^multipart/.*boundary=[\"']?([^\"';\s]{1,70})")
_DELETES = "storage.objects.delete"
"""What overwriting an object needs, besides the permission to create it.

Source: https://cloud.google.com/storage/docs/access-control/iam-json (objects.insert).
"""
_LARGEST_MULTIPART = 64 << 20  # bytes: clients send more in a resumable upload


class Responses:
    """The handlers of buckets and objects."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    async def list_buckets(self, request: web.Request) -> web.Response:
        """`buckets.list`, sorted by name."""
        project, prefix = request.query.get("project", ""), request.query.get("prefix", "")
        found = self._buckets.all(project, prefix)
        size = page_size(request.query.get("maxResults"), _PAGE)
        return web.json_response({"kind": "storage#buckets", **page(request, "items", found, size)})

    async def create_bucket(self, request: web.Request) -> web.Response:
        """`buckets.insert`."""
        project, body = request.query.get("project", ""), await json_object(request)
        return web.json_response(self._buckets.create(project, body))

    async def get_bucket(self, request: web.Request) -> web.Response:
        """`buckets.get`."""
        return web.json_response(self._buckets.get(request.match_info["bucket"]))

    async def patch_bucket(self, request: web.Request) -> web.Response:
        """`buckets.patch`."""
        body = await json_object(request)
        return web.json_response(self._buckets.patch(request.match_info["bucket"], body))

    async def list_objects(self, request: web.Request) -> web.Response:
        """`objects.list`, sorted by name."""
        bucket, prefix = request.match_info["bucket"], request.query.get("prefix", "")
        found = await asyncio.to_thread(self._buckets.objects, bucket, prefix)
        size = page_size(request.query.get("maxResults"), _PAGE)
        return web.json_response({"kind": "storage#objects", **page(request, "items", found, size)})

    async def get_object(self, request: web.Request) -> web.StreamResponse:
        """`objects.get`: the metadata, or with `alt=media` the contents, or a Range of them."""
        if request.query.get("alt") == "media":
            return await self.download(request)
        return web.json_response((await self._stored(request)).document)

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Answer with an object's contents, or a Range of them."""
        stored = await self._stored(request)
        headers = {
            "Content-Type": stored.document["contentType"],
            "X-Goog-Generation": stored.document["generation"],
        }
        return web.FileResponse(stored.file, headers=headers)

    async def _stored(self, request: web.Request) -> Stored:
        match = request.match_info
        return await asyncio.to_thread(
            self._buckets.object,
            *(match["bucket"], match["object"], request.query.get("generation", "")),
        )

    async def delete_object(self, request: web.Request) -> web.Response:
        """`objects.delete`."""
        match = request.match_info
        await asyncio.to_thread(self._buckets.delete, match["bucket"], match["object"])
        return web.Response(status=204)

    async def upload(self, request: web.Request) -> web.Response:
        """`objects.insert` with the contents, or the start of a resumable upload."""
        kind = request.query.get("uploadType", "media")
        if kind == "resumable":
            return await self._start(request)
        if kind == "multipart":
            return await self._multipart(request)
        if kind != "media":
            raise invalid(f"Invalid upload type: {kind}", "uploadType")
        body: dict[str, Any] = {}
        if "Content-Type" in request.headers:
            body["contentType"] = request.content_type
        return await self._receive(self._begin(request, body), request.content.iter_any())

    async def resume(self, request: web.Request) -> web.Response:
        """PUT a piece of a resumable upload, or ask how much has arrived."""
        receiving = self._buckets.receiving(request.query.get("upload_id", ""))
        found = _RANGE.fullmatch(request.headers.get("Content-Range", "bytes 0-0/*"))
        if found is None:
            raise invalid("Invalid Content-Range.")
        whole = "Content-Range" not in request.headers
        if not whole and found[1] and int(found[1]) != receiving.size:
            return _more(receiving)
        await self._take(receiving, request.content.iter_any())
        if whole or (found[3] != "*" and receiving.size >= int(found[3])):
            return await self._finish(receiving)
        return _more(receiving)

    async def _multipart(self, request: web.Request) -> web.Response:
        """Read two parts: the metadata in JSON, and the contents."""
        match = _BOUNDARY.search(request.headers.get("Content-Type", ""))
        if match is None:
            raise invalid("Expected a multipart body.")
        whole = bytearray()
        async for data in request.content.iter_any():
            whole += data
            if len(whole) > _LARGEST_MULTIPART:
                raise TooLarge
        try:
            (_, described), (kind, contents) = _parts(bytes(whole), match[1].encode())
            body = json.loads(described)
            if not isinstance(body, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise invalid("Expected two parts, of which the first is a JSON object.") from None
        body.setdefault("contentType", kind)
        return await self._receive(self._begin(request, body), _piece(contents))

    async def _start(self, request: web.Request) -> web.Response:
        body = await json_object(request)
        if kind := request.headers.get("X-Upload-Content-Type"):
            body.setdefault("contentType", kind)
        receiving = self._begin(request, body)
        place = request.url.with_query(uploadType="resumable", upload_id=receiving.id)
        headers = {"Location": str(place), "X-GUploader-UploadID": receiving.id}
        return web.Response(status=200, headers=headers)

    def _begin(self, request: web.Request, body: dict[str, Any]) -> Receiving:
        if name := request.query.get("name"):
            body["name"] = name
        expected = request.query.get("ifGenerationMatch")
        if expected is not None and not re.fullmatch(r"\d{1,18}", expected):
            raise invalid("Expected a number.", "ifGenerationMatch")
        bucket = request.match_info["bucket"]
        receiving = self._buckets.begin(bucket, body, None if expected is None else int(expected))
        overwrites = expected != "0" and self._buckets.has(bucket, receiving.document["name"])
        if overwrites and not may(request)(_DELETES):
            self._buckets.cancel(receiving)
            raise ApiError("PERMISSION_DENIED", f"To overwrite an object, you need {_DELETES}.")
        return receiving

    async def _receive(self, receiving: Receiving, pieces: AsyncIterator[bytes]) -> web.Response:
        try:
            await self._take(receiving, pieces)
        except BaseException:
            self._buckets.cancel(receiving)
            raise
        return await self._finish(receiving)

    async def _take(self, receiving: Receiving, pieces: AsyncIterator[bytes]) -> None:
        """Append a body, a megabyte at a time."""
        piece = bytearray()
        async for data in pieces:
            piece += data
            if len(piece) >= _PIECE:
                await asyncio.to_thread(receiving.write, bytes(piece))
                piece.clear()
        await asyncio.to_thread(receiving.write, bytes(piece))

    async def _finish(self, receiving: Receiving) -> web.Response:
        return web.json_response(await asyncio.to_thread(self._buckets.finish, receiving))


def _parts(body: bytes, boundary: bytes) -> list[tuple[str, bytes]]:
    """Return the type and the contents of each part of a multipart body.

    gcloud ends lines without a carriage return, and puts the boundary in single quotes, which
    libraries do not read.
    """
    found = []
    for part in body.split(b"--" + boundary)[1:-1]:
        blank = re.search(rb"\r?\n\r?\n", part)
        if blank is None:
            raise ValueError
        head, contents = part[: blank.start()], part[blank.end() :]
        kind = re.search(rb"(?im)^content-type:\s*([^\s;]+)", head)
        contents = contents.removesuffix(b"\n").removesuffix(b"\r")
        found.append((kind[1].decode("latin-1") if kind else "", contents))
    return found


async def _piece(contents: bytes) -> AsyncIterator[bytes]:
    yield contents


def _more(receiving: Receiving) -> web.Response:
    """Answer that an upload is not complete, and how much of it has arrived."""
    headers = {"Range": f"bytes=0-{receiving.size - 1}"} if receiving.size else {}
    return web.Response(status=_RESUME, headers=headers)


def answering(handler: Handler) -> Handler:
    """Return a handler of uploads whose own errors have their HTTP status."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotCurrent:
            text = "At least one of the pre-conditions you specified did not hold."
            return web.json_response(errors.body(412, text), status=412)
        except TooLarge:
            text = "The object is larger than the local Cloud Storage takes."
            return web.json_response(errors.body(413, text), status=413)

    return answer
