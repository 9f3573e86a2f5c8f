"""Which requests belong to Cloud Monitoring."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from emulator.monitoring.models import Metrics
from emulator.monitoring.responses import Responses


def routes(metrics: Metrics, refresh: Callable[[], None]) -> list[web.RouteDef]:
    """Cloud Monitoring's routes. `refresh` makes the counts complete, before each read."""
    responses = Responses(metrics, refresh)
    return [web.get("/v3/projects/{project}/timeSeries", responses.list_time_series)]
