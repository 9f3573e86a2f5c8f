"""Cloud Monitoring's routes."""

from __future__ import annotations

from collections.abc import Callable

from emulator.monitoring.models import Metrics
from emulator.monitoring.responses import Responses
from emulator.permissions import Asks, On
from emulator.routes import Route


def routes(metrics: Metrics, refresh: Callable[[], None]) -> list[Route]:
    """Return Cloud Monitoring's routes. `refresh()` completes the counts before each read."""
    list_time_series = Responses(metrics, refresh).list_time_series
    asks = Asks("monitoring.timeSeries.list", On.PROJECT, "projects/{project}")
    return [Route("GET", "/v3/projects/{project}/timeSeries", list_time_series, asks)]
