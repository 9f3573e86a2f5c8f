"""Resource Manager (v1 and v3) and Service Usage on the wire, as far as setting up needs them.

Source: the discovery documents cloudresourcemanager.v1, cloudresourcemanager.v3, serviceusage.v1.
`emulator.identity` serves the policies of projects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from aiohttp import web

from emulator.errors import invalid
from emulator.fields import typed
from emulator.names import project_number
from emulator.operations import Operations
from emulator.projects.models import Api, Projects
from emulator.wire import json_object, page, page_size

Document = dict[str, Any]

_REGIONS = ("asia-northeast1", "asia-northeast3", "europe-west1", "us-central1", "us-east1")
_V1 = "google.api.serviceusage.v1"
_PAGE, _LARGEST_PAGE = 50, 200
_MOST = 20


class _Made(TypedDict, total=False):
    projectId: str
    enabled: list[str]
    owner: str


class _BatchEnable(TypedDict, total=False):
    serviceIds: list[str]


class Responses:
    """The handlers of both APIs, of Cloud Run's list of locations, and of `/_local/projects`.

    `own(project, member)` makes `member` the owner of a project.
    """

    def __init__(
        self, projects: Projects, operations: Operations, own: Callable[[str, str], None]
    ) -> None:
        self._projects = projects
        self._operations = operations
        self._own = own

    async def make(self, request: web.Request) -> web.Response:
        """Create an empty project: `{"projectId", "enabled": [], "owner": "user:…"}`."""
        body = typed(await json_object(request), _Made)
        project = body.get("projectId", "")
        made = self._projects.make(project, body.get("enabled", []))
        if owner := body.get("owner"):
            self._own(project, owner)
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
        """`services.list`, filtered by state, sorted by name."""
        project = request.match_info["project"]
        found = [_document(project, api) for api in self._projects.apis(project)]
        wanted = request.query.get("filter", "")
        if wanted not in ("", "state:ENABLED", "state:DISABLED"):
            raise invalid("Expected state:ENABLED or state:DISABLED.", "filter")
        found = [one for one in found if wanted in ("", f"state:{one['state']}")]
        refusal = f"Page size must be 1 to {_LARGEST_PAGE}."
        size = page_size(request.query.get("pageSize"), _PAGE, refusal=refusal)
        if size > _LARGEST_PAGE:
            raise invalid(refusal, "pageSize")
        return web.json_response(page(request, "services", found, size))

    async def batch_get(self, request: web.Request) -> web.Response:
        """`services.batchGet`: `names` are full names."""
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
        self._projects.enable(project, [name])
        answer = {"service": self._service(project, name)}
        return self._started(project, [name], "EnableServiceResponse", answer)

    async def batch_enable(self, request: web.Request) -> web.Response:
        """`services.batchEnable`: at most 20, all or none."""
        project = request.match_info["project"]
        names = typed(await json_object(request), _BatchEnable).get("serviceIds", [])
        if not 0 < len(names) <= _MOST:
            raise invalid(f"Expected 1 to {_MOST} services.", "serviceIds")
        self._projects.enable(project, names)
        answer = {"services": [self._service(project, name) for name in names]}
        return self._started(project, names, "BatchEnableServicesResponse", answer)

    async def disable(self, request: web.Request) -> web.Response:
        """`services.disable`. No API depends on another one here."""
        project, name = request.match_info["project"], request.match_info["name"]
        self._projects.disable(project, name)
        answer = {"service": self._service(project, name)}
        return self._started(project, [name], "DisableServiceResponse", answer)

    async def operation(self, request: web.Request) -> web.Response:
        """`operations.get`."""
        return web.json_response(self._operations.get(f"operations/{request.match_info['name']}"))

    def _service(self, project: str, name: str) -> Document:
        return _document(project, self._projects.api(project, name))

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


def _document(project: str, api: Api) -> Document:
    number = project_number(project)
    return {
        "name": f"projects/{number}/services/{api.name}",
        "parent": f"projects/{number}",
        "config": {"name": api.name, "title": api.title},
        "state": "ENABLED" if api.is_enabled else "DISABLED",
    }


async def locations(request: web.Request) -> web.Response:
    """Cloud Run's `projects.locations.list`: some of its regions."""
    project = request.match_info["project"]
    found = [
        {"name": f"projects/{project}/locations/{region}", "locationId": region}
        for region in _REGIONS
    ]
    return web.json_response({"locations": found})
