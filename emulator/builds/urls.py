"""The routes of Cloud Build: builds, their operations, and triggers.

Source: https://cloud.google.com/build/docs/iam-roles-permissions#permissions.
"""

from __future__ import annotations

from emulator.builds import examine
from emulator.builds.models import MARK, Builds
from emulator.builds.responses import Responses
from emulator.builds.trigger_responses import TriggerResponses
from emulator.builds.triggers import Triggers
from emulator.permissions import OPEN, Asks, Checks, On
from emulator.routes import Route

_PROJECT = "/v1/projects/{project}"
_REGION = f"{_PROJECT}/locations/{{region}}"
_TRIGGERS = f"{_REGION}/triggers"
_TRIGGER = f"{_TRIGGERS}/{{trigger:[^/:]+}}"
_SUBMIT = "/v2/projects/{project}/locations/{region}/builds:submit"
_ID = f"{{build:{MARK}-[0-9a-f-]{{27}}}}"


def routes(triggers: Triggers, builds: Builds) -> list[Route]:
    """Return the routes of Cloud Build."""
    answer = TriggerResponses(triggers)
    found = [
        Route("POST", examine.PATH, examine.handler(), OPEN),
        Route("GET", _TRIGGERS, answer.list_triggers, _asks("list")),
        Route("POST", _TRIGGERS, answer.create, _asks("create")),
        Route("GET", _TRIGGER, answer.get, _asks("get")),
        Route("PATCH", _TRIGGER, answer.patch, _asks("update")),
        Route("DELETE", _TRIGGER, answer.delete, _asks("update")),
    ]
    for parent in (_PROJECT, _REGION):
        found += _builds(parent, Responses(builds))
    answer_builds = Responses(builds)
    account = f"{_REGION}/defaultServiceAccount"
    return [
        *found,
        Route("GET", f"{_REGION}/operations/{_ID}", answer_builds.operation, _asks("get")),
        Route("GET", account, answer_builds.default_account, _asks("get")),
        Route("POST", _SUBMIT, answer_builds.submit, _asks("create")),
    ]


def _builds(parent: str, answer: Responses) -> list[Route]:
    place = parent.removeprefix("/v1/")
    creates = _asks("create", place)._replace(checks=Checks.BUILD)
    one = f"{parent}/builds/{_ID}"
    return [
        Route("POST", f"{parent}/builds", answer.create, creates),
        Route("GET", f"{parent}/builds", answer.list_builds, _asks("list", place)),
        Route("GET", one, answer.get, _asks("get", place)),
        Route("POST", f"{one}:cancel", answer.cancel, _asks("update", place)),
    ]


def _asks(verb: str, place: str = "projects/{project}/locations/{region}") -> Asks:
    return Asks(f"cloudbuild.builds.{verb}", On.PROJECT, place)
