"""Tells what of a Dockerfile cannot be packed, before anything is built. Not an API of Google's."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from aiohttp import web

from emulator.builds import engine
from emulator.builds.packing import pack
from emulator.errors import invalid
from emulator.fields import typed
from emulator.routes import Handler
from emulator.wire import json_object

PATH = "/dockerfile:examine"
"""It needs neither a token nor the secret of this start: it is a function of its body alone."""

_LONGEST = 1 << 18  # characters of a Dockerfile


class _Fields(TypedDict, total=False):
    """The types of the request's fields: the Dockerfile's text, and the files of each context."""

    dockerfile: str
    files: list[str]
    contexts: dict[str, list[str]]


def handler() -> Handler:
    """Return the handler, which does one request at a time: everyone may send them."""
    one_at_a_time = asyncio.Semaphore(1)

    async def examine(request: web.Request) -> web.Response:
        """`POST /dockerfile:examine`: the problems, what to know, and whether Docker builds it."""
        asked = typed(await json_object(request), _Fields)
        text, files = asked.get("dockerfile", ""), asked.get("files", [])
        if len(text) > _LONGEST:
            raise invalid(f"The Dockerfile has more than {_LONGEST} characters.", "dockerfile")
        async with one_at_a_time:
            contexts = asked.get("contexts", {})
            return web.json_response(await asyncio.to_thread(_answer, text, files, contexts))

    return examine


def _answer(text: str, files: list[str], contexts: dict[str, list[str]]) -> dict[str, Any]:
    found = pack.examine(text, files, contexts=contexts)
    return {
        "problems": [
            {
                "line": one.line,
                "instruction": one.instruction,
                "reason": one.reason,
                "instead": one.instead,
            }
            for one in found.problems
        ],
        "notes": [
            {"line": one.line, "instruction": one.instruction, "text": one.text, "kind": one.kind}
            for one in found.notes
        ],
        "docker": bool(found.problems) and engine.answers(),
    }
