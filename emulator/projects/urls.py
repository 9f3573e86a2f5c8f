"""Resource Manager (v1 and v3) and Service Usage on the wire, as far as setting up asks for them.

Source: the discovery documents cloudresourcemanager.v1, cloudresourcemanager.v3, serviceusage.v1.
The policies of projects are served by `emulator.identity`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from emulator.errors import ApiError, invalid
from emulator.faults import BILLING, Faults
from emulator.names import project_number
from emulator.operations import Operations
from emulator.projects import apis
from emulator.projects.models import Projects
from emulator.routes import CALLER, OPEN, Asks, On, Route

Document = dict[str, Any]

_REGIONS = ("asia-northeast1", "asia-northeast3", "europe-west1", "us-central1", "us-east1")
_PROJECT = "{project:[^/:]+}"
_SERVICES = f"/v1/projects/{_PROJECT}/services"
_SERVICE = f"{_SERVICES}/{{name:[^/:]+}}"
_V1 = "google.api.serviceusage.v1"
_PAGE, _LARGEST_PAGE = 50, 200
_MOST = 20


class ProjectResponses:
    """The handlers; `own(project, member)` makes somebody the owner of a project."""

    def __init__(
        self,
        projects: Projects,
        operations: Operations,
        faults: Faults,
        own: Callable[[str, str], None],
    ) -> None:
        self._projects = projects
        self._operations = operations
        self._faults = faults
        self._own = own

    def routes(self) -> list[Route]:
        """The routes of both APIs, the list of Cloud Run's locations, and `/_local/projects`."""

        def asks(permission: str) -> Asks:
            return Asks(permission, On.PROJECT, "projects/{project}")

        gets_project = asks("resourcemanager.projects.get")
        lists, gets, enables, disables = (
            asks(f"serviceusage.services.{verb}") for verb in ("list", "get", "enable", "disable")
        )
        locations = asks("run.locations.list")
        return [
            Route("POST", "/_local/projects", self.make, OPEN),
            Route("GET", f"/v1/projects/{_PROJECT}", self.project, gets_project),
            Route("GET", f"/v3/projects/{_PROJECT}", self.project_v3, gets_project),
            Route("GET", _SERVICES, self.list_services, lists),
            Route("GET", f"{_SERVICES}:batchGet", self.batch_get, gets),
            Route("POST", f"{_SERVICES}:batchEnable", self.batch_enable, enables),
            Route("GET", _SERVICE, self.service, gets),
            Route("POST", f"{_SERVICE}:enable", self.enable, enables),
            Route("POST", f"{_SERVICE}:disable", self.disable, disables),
            Route("GET", "/v1/operations/{name}", self.operation, CALLER),
            Route("GET", "/v1/projects/{project}/locations", _locations, locations),
        ]

    async def make(self, request: web.Request) -> web.Response:
        """A bare project: `{"projectId", "enabled": [], "owner": "user:…"}`."""
        body = await _body(request)
        project = str(body.get("projectId", ""))
        made = self._projects.make(project, map(str, body.get("enabled") or []))
        if owner := body.get("owner"):
            self._own(project, str(owner))
        return web.json_response({"projectId": made["id"], "projectNumber": made["number"]})

    # Resource Manager

    async def project(self, request: web.Request) -> web.Response:
        """`projects.get` of v1."""
        project = self._projects.id_of(request.match_info["project"])
        return web.json_response(
            {
                "projectId": project,
                "projectNumber": project_number(project),
                "name": project,
                "lifecycleState": "ACTIVE",
                "createTime": self._projects.created(project),
            }
        )

    async def project_v3(self, request: web.Request) -> web.Response:
        """`projects.get` of v3."""
        project = self._projects.id_of(request.match_info["project"])
        return web.json_response(
            {
                "name": f"projects/{project_number(project)}",
                "projectId": project,
                "displayName": project,
                "state": "ACTIVE",
                "createTime": self._projects.created(project),
            }
        )

    # Service Usage

    async def service(self, request: web.Request) -> web.Response:
        """`services.get`."""
        match = request.match_info
        return web.json_response(self._service(match["project"], match["name"]))

    async def list_services(self, request: web.Request) -> web.Response:
        """`services.list`, filtered by state, paged by name."""
        project = request.match_info["project"]
        found = [self._service(project, name) for name in sorted(apis.TITLES)]
        wanted = request.query.get("filter", "")
        if wanted not in ("", "state:ENABLED", "state:DISABLED"):
            raise invalid("Expected state:ENABLED or state:DISABLED.", "filter")
        found = [one for one in found if wanted in ("", f"state:{one['state']}")]
        size = request.query.get("pageSize") or "0"
        if not size.isdecimal() or int(size) > _LARGEST_PAGE:
            raise invalid(f"Page size must be 1 to {_LARGEST_PAGE}.", "pageSize")
        size_asked = int(size) or _PAGE
        found = [one for one in found if one["name"] > request.query.get("pageToken", "")]
        page = found[:size_asked]
        answer: Document = {"services": page} if page else {}
        if found[size_asked:]:
            answer["nextPageToken"] = page[-1]["name"]
        return web.json_response(answer)

    async def batch_get(self, request: web.Request) -> web.Response:
        """`services.batchGet`: `names` are full names, at most 30."""
        project = request.match_info["project"]
        names = [name.rpartition("/")[2] for name in request.query.getall("names", [])]
        if not names:
            raise invalid("At least one name is required.", "names")
        return web.json_response({"services": [self._service(project, name) for name in names]})

    async def enable(self, request: web.Request) -> web.Response:
        """`services.enable`."""
        project, name = request.match_info["project"], request.match_info["name"]
        if self._projects.is_enabled(project, name):
            done = {"@type": f"type.googleapis.com/{_V1}.EnableServiceResponse"}
            response = {**done, "service": self._service(project, name)}
            noop = {"name": "operations/noop.DONE_OPERATION", "done": True, "response": response}
            return web.json_response(noop)
        self._enable(project, [name])
        answer = {"service": self._service(project, name)}
        return self._started(project, [name], "EnableServiceResponse", answer)

    async def batch_enable(self, request: web.Request) -> web.Response:
        """`services.batchEnable`: at most 20, all or none."""
        project = request.match_info["project"]
        names = [str(name) for name in (await _body(request)).get("serviceIds") or []]
        if not 0 < len(names) <= _MOST:
            raise invalid(f"Expected 1 to {_MOST} services.", "serviceIds")
        self._enable(project, names)
        answer = {"services": [self._service(project, name) for name in names]}
        return self._started(project, names, "BatchEnableServicesResponse", answer)

    async def disable(self, request: web.Request) -> web.Response:
        """`services.disable`; no other API is ever taken to depend on one."""
        project, name = request.match_info["project"], request.match_info["name"]
        self._projects.disable(project, name)
        answer = {"service": self._service(project, name)}
        return self._started(project, [name], "DisableServiceResponse", answer)

    async def operation(self, request: web.Request) -> web.Response:
        """`operations.get`."""
        return web.json_response(self._operations.get(f"operations/{request.match_info['name']}"))

    def _enable(self, project: str, names: list[str]) -> None:
        number = project_number(project)
        if self._faults.get(BILLING):
            listed = ",".join(names)
            raise ApiError(
                "FAILED_PRECONDITION",
                f"Billing account for project '{number}' is not found. Billing must be enabled for "
                f"activation of service(s) '{listed}' to proceed.",
                [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "UREQ_PROJECT_BILLING_NOT_FOUND",
                        "domain": "serviceusage.googleapis.com/billing-enabled",
                        "metadata": {"project": number, "services": listed},
                    }
                ],
            )
        self._projects.enable(project, names)

    def _service(self, project: str, name: str) -> Document:
        number = project_number(project)
        title = apis.TITLES.get(name)
        if title is None and self._projects.is_made(project):
            raise ApiError("NOT_FOUND", f"Service {name} not found or permission denied.")
        enabled = title is None or self._projects.is_enabled(project, name)
        return {
            "name": f"projects/{number}/services/{name}",
            "parent": f"projects/{number}",
            "config": {"name": name, "title": title or name},
            "state": "ENABLED" if enabled else "DISABLED",
        }

    def _started(
        self, project: str, names: list[str], response: str, answer: Document
    ) -> web.Response:
        number = project_number(project)
        metadata = {
            "@type": f"type.googleapis.com/{_V1}.OperationMetadata",
            "resourceNames": [f"projects/{number}/services/{name}" for name in names],
        }
        prefix = f"acat.p2-{number}-"
        started = self._operations.start("", f"{_V1}.{response}", answer, metadata, prefix)
        return web.json_response(started)


async def _body(request: web.Request) -> Document:
    body = json.loads(await request.read() or b"{}")
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    return body


async def _locations(request: web.Request) -> web.Response:
    project = request.match_info["project"]
    locations = [
        {"name": f"projects/{project}/locations/{region}", "locationId": region}
        for region in _REGIONS
    ]
    return web.json_response({"locations": locations})
