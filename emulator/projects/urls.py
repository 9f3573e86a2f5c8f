"""The routes of Resource Manager and Service Usage."""

from __future__ import annotations

from collections.abc import Callable

from emulator.operations import Operations
from emulator.permissions import CALLER, LOCAL, Asks, On
from emulator.projects.models import Projects
from emulator.projects.responses import Responses, locations
from emulator.routes import Route

_PROJECT = "{project:[^/:]+}"
_SERVICES = f"/v1/projects/{_PROJECT}/services"
_SERVICE = f"{_SERVICES}/{{name:[^/:]+}}"


def routes(
    projects: Projects, operations: Operations, own: Callable[[str, str], None]
) -> list[Route]:
    """Return the routes of both APIs, of Cloud Run's locations, and of `/_local/projects`.

    `own(project, member)` makes `member` the owner of a project.
    """
    answer = Responses(projects, operations, own)
    gets_project = _on_project("resourcemanager.projects.get")
    lists, gets, enables, disables = (
        _on_project(f"serviceusage.services.{verb}")
        for verb in ("list", "get", "enable", "disable")
    )
    lists_locations = _on_project("run.locations.list")
    return [
        Route("POST", "/_local/projects", answer.make, LOCAL),
        Route("GET", f"/v1/projects/{_PROJECT}", answer.project, gets_project),
        Route("GET", f"/v3/projects/{_PROJECT}", answer.project_v3, gets_project),
        Route("GET", _SERVICES, answer.list_services, lists),
        Route("GET", f"{_SERVICES}:batchGet", answer.batch_get, gets),
        Route("POST", f"{_SERVICES}:batchEnable", answer.batch_enable, enables),
        Route("GET", _SERVICE, answer.service, gets),
        Route("POST", f"{_SERVICE}:enable", answer.enable, enables),
        Route("POST", f"{_SERVICE}:disable", answer.disable, disables),
        Route("GET", "/v1/operations/{name}", answer.operation, CALLER),
        Route("GET", "/v1/projects/{project}/locations", locations, lists_locations),
    ]


def _on_project(permission: str) -> Asks:
    return Asks(permission, On.PROJECT, "projects/{project}")
