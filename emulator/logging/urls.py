"""Which requests belong to Cloud Logging."""

from __future__ import annotations

from aiohttp import web

from emulator.logging.models import Logs
from emulator.logging.responses import Responses


def routes(logs: Logs) -> list[web.RouteDef]:
    """Cloud Logging's routes."""
    return [web.post("/v2/entries:list", Responses(logs).list_entries)]
