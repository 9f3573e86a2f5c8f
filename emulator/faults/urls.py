"""The routes that start and end faults, and list the calls that were made."""

from __future__ import annotations

from emulator.faults.models import Faults
from emulator.faults.responses import Responses
from emulator.permissions import LOCAL
from emulator.routes import Route

_FAULTS = "/_local/faults"


def routes(faults: Faults) -> list[Route]:
    """Return the routes of faults."""
    answer = Responses(faults)
    return [
        Route("GET", _FAULTS, answer.list_faults, LOCAL),
        Route("POST", _FAULTS, answer.start, LOCAL),
        Route("DELETE", f"{_FAULTS}/{{name}}", answer.end, LOCAL),
        Route("GET", "/_local/calls", answer.list_calls, LOCAL),
    ]
