"""Pages for a browser: a list of services, and the log of a revision."""

from __future__ import annotations

from aiohttp import web

from emulator.errors import ApiError
from emulator.logging import filters
from emulator.logging.matching import Entry
from emulator.logging.models import Logs
from emulator.names import Key
from emulator.permissions import OPEN
from emulator.routes import Route
from emulator.run import conditions
from emulator.run.resources import Resources

# Users look for the last lines of a log.
_LINES = 1000


def routes(resources: Resources, logs: Logs, url: str) -> list[Route]:
    """Return the pages' routes; `url` is the base URL of the APIs."""

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=_index(resources, url))

    async def log(request: web.Request) -> web.Response:
        match = request.match_info
        key = Key(match["project"], match["region"], match["name"])
        if key not in resources.revisions:
            raise ApiError("NOT_FOUND", f"Revision '{key.name}' does not exist.")
        wanted = filters.parse(
            f'resource.labels.location="{key.region}" resource.labels.revision_name="{key.name}"'
            ' -logName:"%2Frequests"'
        )
        entries = reversed(await logs.page([key.project], wanted, _LINES, newest=True))
        return web.Response(text="".join(f"{_line(entry)}\n" for entry in entries))

    return [
        Route("GET", "/", index, OPEN),
        Route("GET", "/logs/{project}/{region}/{name}", log, OPEN),
    ]


def _index(resources: Resources, url: str) -> str:
    lines = [
        "A local Cloud Run",
        "",
        f"Cloud Run Admin API v1  {url}/apis/serving.knative.dev/v1/namespaces/PROJECT/services",
        f"                        {url}/v1/projects/PROJECT/locations/REGION/services",
        f"OCI registry            {url}/v2/",
        f"Cloud Logging           {url}/v2/entries:list",
        f"Cloud Monitoring        {url}/v3/projects/PROJECT/timeSeries",
        f"Artifact Registry       {url}/v1/projects/PROJECT/locations/REGION/repositories/NAME/…",
        "",
    ]
    if not resources.services:
        lines.append("No services yet.")
    for key, service in sorted(resources.services.items()):
        status = service["status"]
        ready = conditions.get(service, "Ready")
        lines.append(f"{key.path}  {status.get('url', '')}  Ready: {ready.status}")
        for target in status.get("traffic", []):
            tag = f"  {target['tag']}: {target['url']}" if "tag" in target else ""
            lines.append(f"  {target.get('percent', 0):3d} %  {target['revisionName']}{tag}")
    return "\n".join(lines) + "\n"


def _line(entry: Entry) -> str:
    text = entry.get("textPayload") or entry.get("jsonPayload", "")
    return f"{entry['timestamp']} {entry.get('severity', 'DEFAULT'):8} {text}"
