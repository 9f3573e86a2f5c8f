"""Which requests belong to Cloud Logging."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from emulator.logging.models import Logs
from emulator.logging.responses import Responses


def routes(logs: Logs, refresh: Callable[[], None]) -> list[web.RouteDef]:
    """Cloud Logging's routes. `refresh` makes the logs complete; it is called before each read."""
    return [web.post("/v2/entries:list", Responses(logs, refresh).list_entries)]
