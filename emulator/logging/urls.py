"""Cloud Logging's routes."""

from __future__ import annotations

from collections.abc import Callable

from emulator.logging.models import Logs
from emulator.logging.responses import Responses
from emulator.permissions import Asks, On
from emulator.routes import Route


def routes(logs: Logs, refresh: Callable[[], None]) -> list[Route]:
    """Return Cloud Logging's routes. `refresh()` completes the logs before each read."""
    list_entries = Responses(logs, refresh).list_entries
    asks = Asks("logging.logEntries.list", On.LOGS)
    return [Route("POST", "/v2/entries:list", list_entries, asks)]
