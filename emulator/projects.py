"""The little that clients ask of other Google APIs before they deploy.

gcloud asks Resource Manager for the project, and Service Usage whether Cloud Run is enabled.
"""

from __future__ import annotations

from aiohttp import web

from emulator.names import project_number

_REGIONS = ("asia-northeast1", "asia-northeast3", "europe-west1", "us-central1", "us-east1")


def routes() -> list[web.RouteDef]:
    """The routes of both, and the list of Cloud Run's locations."""
    return [
        web.get("/v1/projects/{project}", _project),
        web.get("/v1/projects/{project}/services/{name}", _service),
        web.get("/v1/projects/{project}/locations", _locations),
    ]


async def _project(request: web.Request) -> web.Response:
    project = request.match_info["project"]
    return web.json_response(
        {
            "projectId": project,
            "projectNumber": project_number(project),
            "name": project,
            "lifecycleState": "ACTIVE",
        }
    )


async def _service(request: web.Request) -> web.Response:
    number = project_number(request.match_info["project"])
    name = request.match_info["name"]
    return web.json_response(
        {
            "name": f"projects/{number}/services/{name}",
            "parent": f"projects/{number}",
            "config": {"name": name},
            "state": "ENABLED",
        }
    )


async def _locations(request: web.Request) -> web.Response:
    project = request.match_info["project"]
    locations = [
        {"name": f"projects/{project}/locations/{region}", "locationId": region}
        for region in _REGIONS
    ]
    return web.json_response({"locations": locations})
