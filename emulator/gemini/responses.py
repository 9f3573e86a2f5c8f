"""Gemini's models on the wire: an answer at once, or in pieces as they are made."""

from __future__ import annotations

import asyncio
import contextlib
import json

from aiohttp import web

from emulator.errors import ApiError
from emulator.gemini import models
from emulator.wire import Document, Pieces, json_object

_SECONDS = 0.03  # between two pieces, so that a page shows how they come


async def generate(request: web.Request) -> web.Response:
    """`models.generateContent`."""
    return web.json_response(models.whole(_name(request), await json_object(request)))


async def stream(request: web.Request) -> web.StreamResponse:
    """`models.streamGenerateContent`: server-sent events for `alt=sse`, else a JSON list."""
    # Before the headers are sent, so that a refusal has a status of its own.
    found = list(models.pieces(_name(request), await json_object(request)))
    if request.query.get("alt") == "sse":
        return await _events(request, found)
    return web.json_response(found)


async def unnamed(_request: web.Request) -> web.Response:
    """Explain a call of google-genai to the bare address, which names no model."""
    raise ApiError(
        "NOT_FOUND",
        "No model is named. With GOOGLE_VERTEX_BASE_URL, google-genai ignores the variables "
        "GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION. Name both in the code: "
        "genai.Client(vertexai=True, project=..., location=...).",
    )


async def _events(request: web.Request, found: list[Document]) -> web.StreamResponse:
    answer = Pieces(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the caller has gone
        for piece in found:
            await answer.write(f"data: {json.dumps(piece)}\r\n\r\n".encode())
            answer.documents.append(piece)
            await asyncio.sleep(_SECONDS)
        await answer.write_eof()
    return answer


def _name(request: web.Request) -> str:
    return (
        "projects/{project}/locations/{location}/publishers/{publisher}/models/{model}".format_map(
            request.match_info
        )
    )
