"""entries.list on the wire.

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from emulator.errors import invalid
from emulator.logging import filters
from emulator.logging.models import Logs

_PAGE, _LARGEST_PAGE = 50, 1000
_KNOWN = {"resourceNames", "projectIds", "filter", "orderBy", "pageSize", "pageToken"}


class Responses:
    """The handlers of Cloud Logging's API."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def list_entries(self, request: web.Request) -> web.Response:
        """`POST /v2/entries:list`."""
        body = await request.json()
        if not isinstance(body, dict):
            raise invalid("The request body must be a JSON object.")
        for unknown in body.keys() - _KNOWN:
            raise invalid(f'Unknown name "{unknown}": Cannot find field.', unknown)
        projects = _projects(body)
        conditions = filters.parse(body.get("filter") or "")
        newest_first = _newest_first(body.get("orderBy") or "timestamp asc")
        size = min(int(body.get("pageSize") or _PAGE), _LARGEST_PAGE)
        entries = await asyncio.to_thread(
            lambda: [
                entry for project in projects for entry in self._logs.entries(project, conditions)
            ]
        )
        if newest_first:
            entries.reverse()
        return web.json_response(_page(entries, size, str(body.get("pageToken") or "")))


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


def _page(entries: list[dict[str, Any]], size: int, token: str) -> dict[str, Any]:
    """A page of entries; the token of the next page is the insertId of this one's last entry."""
    start = 0
    if token:
        ids = [entry["insertId"] for entry in entries]
        if token not in ids:
            raise invalid("The page token is not valid.", "pageToken")
        start = ids.index(token) + 1
    page = entries[start : start + size]
    answer: dict[str, Any] = {"entries": page}
    if start + size < len(entries):
        answer["nextPageToken"] = page[-1]["insertId"]
    return answer
