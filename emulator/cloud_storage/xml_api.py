"""Cloud Storage's XML API, as far as gcloud reads the log of a build with it: GET of an object.

Sources: https://cloud.google.com/storage/docs/xml-api/get-object-download and
https://cloud.google.com/storage/docs/xml-api/reference-status.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from aiohttp import web

from emulator.cloud_storage.models import Buckets
from emulator.cloud_storage.responses import Responses
from emulator.cloud_storage.urls import READS
from emulator.errors import ApiError
from emulator.routes import Handler, Route

_CODES = {401: "AuthenticationRequired", 403: "AccessDenied", 404: "NoSuchKey"}


def routes(buckets: Buckets) -> list[Route]:
    """Return the XML API's routes."""
    return [Route("GET", "/{bucket}/{object:.+}", Responses(buckets).download, READS)]


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors as the XML API does."""
    try:
        return await handler(request)
    except ApiError as error:
        code = _CODES.get(error.code, "InvalidArgument")
        text = (
            "<?xml version='1.0' encoding='UTF-8'?>"
            f"<Error><Code>{code}</Code><Message>{escape(error.message)}</Message></Error>"
        )
        return web.Response(status=error.code, text=text, content_type="application/xml")
