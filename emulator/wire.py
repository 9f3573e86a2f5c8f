"""JSON bodies and pages, as several APIs read and write them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from emulator.errors import invalid
from emulator.fields import is_deep

Document = dict[str, Any]

_LONGEST_NUMBER = 10  # digits: page sizes have 32 bits


async def json_object(request: web.Request, *, required: bool = False) -> Document:
    """Read a request's body, a JSON object.

    Args:
        request: The request.
        required: Whether an empty body is an error. Otherwise it stands for an empty object.

    Raises:
        ApiError: INVALID_ARGUMENT; the body is something else.
    """
    contents = await request.read()
    if not contents and not required:
        return {}
    try:
        body = json.loads(contents)
        if is_deep(body):
            raise ValueError
        # Half of a surrogate pair is JSON for Python, but no text of UTF-8.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise invalid("Invalid JSON payload received.") from None
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    return body


class Pieces(web.StreamResponse):
    """An answer that is sent in pieces, each a JSON document.

    Attributes:
        documents: The documents that were sent.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self.documents: list[Document] = []


def page_size(asked: object, default: int, *, refusal: str = "Expected a number.") -> int:
    """Return how many items a page may have.

    Args:
        asked: `pageSize` as the request has it; absent, "" and 0 stand for `default`.
        default: The size of a page that the client leaves to the API.
        refusal: The API's message for a size that is not a number.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    text = str(asked or 0)
    if asked is True or not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise invalid(refusal, "pageSize")
    return int(text) or default


def cut(found: list[Document], size: int, after: str) -> tuple[list[Document], str]:
    """Cut a page out of a list that is sorted by `name`.

    Returns:
        The documents whose names follow `after`, at most `size`, and the name to continue after:
        "" on the last page.
    """
    rest = [one for one in found if one["name"] > after]
    page = rest[:size]
    return page, str(page[-1]["name"]) if len(rest) > len(page) else ""


def page(request: web.Request, field: str, found: list[Document], size: int) -> Document:
    """Return the page that a request asks for, of a list that is sorted by `name`.

    Args:
        request: The request; its `pageToken` is the last name of the page before.
        field: The answer's field for the documents, which an empty page leaves out.
        found: The whole list.
        size: How many documents a page may have.
    """
    shown, last = cut(found, size, request.query.get("pageToken", ""))
    return {**({field: shown} if shown else {}), **({"nextPageToken": last} if last else {})}


def to_token(text: str) -> str:
    """Return a page token that holds `text`, unreadable to people as Google's are."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def from_token(token: str) -> str:
    """Return the text of a page token; raises ValueError for one that `to_token` did not make."""
    return base64.urlsafe_b64decode(token).decode()
