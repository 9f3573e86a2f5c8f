"""The wire format of entries.list.

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from aiohttp import web

from emulator.errors import invalid
from emulator.fields import typed
from emulator.logging import filters
from emulator.logging.models import Logs, Place, place
from emulator.names import check_project
from emulator.wire import from_token, json_object, page_size, to_token

_PAGE, _LARGEST_PAGE = 50, 1000
_KNOWN = {"resourceNames", "projectIds", "filter", "orderBy", "pageSize", "pageToken"}


class _Asked(TypedDict, total=False):
    resourceNames: list[str]
    projectIds: list[str]
    filter: str
    orderBy: str
    pageToken: str


class Responses:
    """The handlers of Cloud Logging's API. `refresh()` completes the logs before each read."""

    def __init__(self, logs: Logs, refresh: Callable[[], None]) -> None:
        self._logs = logs
        self._refresh = refresh

    async def list_entries(self, request: web.Request) -> web.Response:
        """`POST /v2/entries:list`."""
        body = await json_object(request, required=True)
        for unknown in body.keys() - _KNOWN:
            raise invalid(f'Unknown name "{unknown}": Cannot find field.', unknown)
        body = typed(body, _Asked)
        projects = _projects(body)
        wanted = filters.parse(body.get("filter", ""))
        newest_first = _newest_first(body.get("orderBy") or "timestamp asc")
        refusal = "page_size must be a positive number."
        size = min(page_size(body.get("pageSize"), _PAGE, refusal=refusal), _LARGEST_PAGE)
        after = _place(body.get("pageToken", ""))
        self._refresh()
        found = await self._logs.page(projects, wanted, size + 1, newest=newest_first, after=after)
        answer: dict[str, Any] = {"entries": found[:size]}
        if len(found) > size:
            answer["nextPageToken"] = to_token("/".join(place(found[size - 1])))
        return web.json_response(answer)


def _projects(body: dict[str, Any]) -> list[str]:
    names = [
        *body.get("resourceNames", []),
        *(f"projects/{p}" for p in body.get("projectIds", [])),
    ]
    if not names:
        raise invalid("At least one resource name is required.", "resourceNames")
    for name in names:
        if not name.startswith("projects/"):
            raise invalid(f"'{name}' is not supported: expected projects/PROJECT.", "resourceNames")
    return [check_project(name.removeprefix("projects/")) for name in names]


def _newest_first(order: str) -> bool:
    if order not in ("timestamp asc", "timestamp desc"):
        raise invalid("Expected 'timestamp asc' or 'timestamp desc'.", "orderBy")
    return order == "timestamp desc"


def _place(token: str) -> Place | None:
    """Return the place of the last entry of the page before; None for the first page."""
    if not token:
        return None
    try:
        timestamp, insert_id = from_token(token).split("/")
    except ValueError:
        raise invalid("page_token is not valid.", "pageToken") from None
    return timestamp, insert_id
