"""The routes of Cloud Build's triggers.

Source: https://cloud.google.com/build/docs/iam-roles-permissions#permissions.
"""

from __future__ import annotations

from emulator.builds.models import Triggers
from emulator.builds.responses import Responses
from emulator.permissions import Asks, On
from emulator.routes import Route

_TRIGGERS = "/v1/projects/{project}/locations/{region}/triggers"
_TRIGGER = f"{_TRIGGERS}/{{trigger:[^/:]+}}"


def routes(triggers: Triggers) -> list[Route]:
    """Return the routes of triggers."""
    answer = Responses(triggers)
    return [
        Route("GET", _TRIGGERS, answer.list_triggers, _asks("list")),
        Route("POST", _TRIGGERS, answer.create, _asks("create")),
        Route("GET", _TRIGGER, answer.get, _asks("get")),
        Route("PATCH", _TRIGGER, answer.patch, _asks("update")),
        Route("DELETE", _TRIGGER, answer.delete, _asks("update")),
    ]


def _asks(verb: str) -> Asks:
    return Asks(f"cloudbuild.builds.{verb}", On.PROJECT, "projects/{project}/locations/{region}")
