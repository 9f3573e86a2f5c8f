"""The wire format of entries.list.

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from aiohttp import web

from emulator.errors import invalid
from emulator.logging import filters
from emulator.logging.matching import Entry
from emulator.logging.models import Logs, Place, place

_PAGE, _LARGEST_PAGE = 50, 1000
_KNOWN = {"resourceNames", "projectIds", "filter", "orderBy", "pageSize", "pageToken"}


class Responses:
    """The handlers of Cloud Logging's API. `refresh()` completes the logs before each read."""

    def __init__(self, logs: Logs, refresh: Callable[[], None]) -> None:
        self._logs = logs
        self._refresh = refresh

    async def list_entries(self, request: web.Request) -> web.Response:
        """`POST /v2/entries:list`."""
        body = await request.json()
        if not isinstance(body, dict):
            raise invalid("The request body must be a JSON object.")
        for unknown in body.keys() - _KNOWN:
            raise invalid(f'Unknown name "{unknown}": Cannot find field.', unknown)
        projects = _projects(body)
        wanted = filters.parse(body.get("filter") or "")
        newest_first = _newest_first(body.get("orderBy") or "timestamp asc")
        size = _size(body.get("pageSize") or _PAGE)
        after = _place(str(body.get("pageToken") or ""))
        self._refresh()
        found = await self._logs.page(projects, wanted, size + 1, newest=newest_first, after=after)
        answer: dict[str, Any] = {"entries": found[:size]}
        if len(found) > size:
            answer["nextPageToken"] = _token(found[size - 1])
        return web.json_response(answer)


def _projects(body: dict[str, Any]) -> list[str]:
    names = [
        *(body.get("resourceNames") or []),
        *(f"projects/{p}" for p in body.get("projectIds") or []),
    ]
    if not names:
        raise invalid("At least one resource name is required.", "resourceNames")
    for name in names:
        if not isinstance(name, str) or not name.startswith("projects/"):
            raise invalid(f"'{name}' is not supported: expected projects/PROJECT.", "resourceNames")
    return [name.split("/")[1] for name in names]


def _newest_first(order: str) -> bool:
    if order not in ("timestamp asc", "timestamp desc"):
        raise invalid("Expected 'timestamp asc' or 'timestamp desc'.", "orderBy")
    return order == "timestamp desc"


def _size(asked: object) -> int:
    if isinstance(asked, bool) or not str(asked).isdecimal():
        raise invalid("page_size must be a positive number.", "pageSize")
    return min(int(str(asked)), _LARGEST_PAGE)


def _token(last: Entry) -> str:
    """Return the token of the page that follows the entry `last`."""
    return base64.urlsafe_b64encode("/".join(place(last)).encode()).decode()


def _place(token: str) -> Place | None:
    if not token:
        return None
    try:
        timestamp, insert_id = base64.urlsafe_b64decode(token).decode().split("/")
    except ValueError:
        raise invalid("page_token is not valid.", "pageToken") from None
    return timestamp, insert_id
