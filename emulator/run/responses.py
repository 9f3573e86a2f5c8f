"""The wire format of the Admin API: from a request's path and body to the models and back."""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web

from emulator.errors import ApiError, invalid
from emulator.names import Key
from emulator.routes import Handler, may
from emulator.run import documents, list_parameters
from emulator.run.directory import Directory
from emulator.run.models import Admin
from emulator.run.operations import Operations
from emulator.run.policies import Policies
from emulator.wire import Document, json_object

_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_PARAMETERS = {
    "alt",
    "continue",
    "dryRun",
    "fieldSelector",
    "includeUninitialized",
    "key",
    "labelSelector",
    "limit",
    "options.requestedPolicyVersion",
    "prettyPrint",
    "quotaUser",
    "resourceVersion",
    "watch",
    # Only in deletes:
    "apiVersion",
    "kind",
    "orphanDependents",
    "propagationPolicy",
}


class Responses:
    """The handlers of the Admin API."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._directory = Directory(admin.resources)
        self._policies = Policies(admin)
        self._operations = Operations(admin.resources)

    # Services

    async def list_services(self, request: web.Request) -> web.Response:
        """List the services of a project, in one region or (`locations/-`) in all."""
        return self._list(request, "Service", self._admin.services(*self._place(request)))

    async def get_service(self, request: web.Request) -> web.Response:
        """Return one service."""
        return web.json_response(self._admin.service(self._key(request)))

    async def create_service(self, request: web.Request) -> web.Response:
        """Create a service. Its name is in the body."""
        body = await json_object(request, required=True)
        metadata = body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(name, str) or not name:
            raise invalid("The name is required.", "metadata.name")
        key = self._key(request, name)
        return web.json_response(self._admin.create(key, body, dry_run=_dry_run(request)))

    async def replace_service(self, request: web.Request) -> web.Response:
        """Replace a service."""
        body = await json_object(request, required=True)
        key = self._key(request)
        return web.json_response(self._admin.replace(key, body, dry_run=_dry_run(request)))

    async def delete_service(self, request: web.Request) -> web.Response:
        """Delete a service with all its revisions."""
        self._admin.delete(self._key(request), dry_run=_dry_run(request))
        return _success()

    # Revisions, and the read-only halves of a service

    async def list_revisions(self, request: web.Request) -> web.Response:
        """List the revisions, newest first."""
        project, region = self._place(request)
        found = self._admin.revisions(project, region)
        return self._list(request, "Revision", found, lambda it: self._admin.shown(project, it))

    async def get_revision(self, request: web.Request) -> web.Response:
        """Return one revision."""
        return web.json_response(self._admin.revision(self._key(request)))

    async def delete_revision(self, request: web.Request) -> web.Response:
        """Delete a revision that is not in use."""
        self._admin.delete_revision(self._key(request), dry_run=_dry_run(request))
        return _success()

    def list_of(self, kind: str, view: Callable[[Document], Document]) -> Handler:
        """Return a handler that lists the `view` of every service, of type `kind`."""

        async def handler(request: web.Request) -> web.Response:
            services = self._admin.services(*self._place(request))
            return self._list(request, kind, [view(service) for service in services])

        return handler

    def one_of(self, view: Callable[[Document], Document]) -> Handler:
        """Return a handler that answers with the `view` of one service."""

        async def handler(request: web.Request) -> web.Response:
            return web.json_response(view(self._admin.service(self._key(request))))

        return handler

    # Operations

    async def get_operation(self, request: web.Request) -> web.Response:
        """Return one operation in its current state."""
        return web.json_response(self._operations.get(*self._key(request)))

    async def wait_for_operation(self, request: web.Request) -> web.Response:
        """`:wait`: return one operation once it is done."""
        body = await json_object(request, required=True)
        return web.json_response(await self._operations.wait(*self._key(request), body))

    # Policies

    async def get_policy(self, request: web.Request) -> web.Response:
        """`:getIamPolicy`."""
        return web.json_response(self._policies.get(self._key(request)))

    async def set_policy(self, request: web.Request) -> web.Response:
        """`:setIamPolicy`."""
        body = await json_object(request, required=True)
        return web.json_response(self._policies.set(self._key(request), body))

    async def test_permissions(self, request: web.Request) -> web.Response:
        """`:testIamPermissions`."""
        self._key(request)
        body = await json_object(request, required=True)
        return web.json_response(self._policies.test(body, may(request)))

    # Parts that several requests share

    def _place(self, request: web.Request) -> tuple[str, str | None]:
        """Return a request's project and region; None stands for every region."""
        _check_parameters(request)
        project = self._admin.resources.project_id(request.match_info["project"])
        region = request.match_info.get("region")
        if region == "-":
            return project, None
        if region is not None and not _REGION.fullmatch(region):
            raise ApiError("NOT_FOUND", f"Location '{region}' does not exist.")
        return project, region or self._directory.region_of(request.host, project)

    def _key(self, request: web.Request, name: str | None = None) -> Key:
        project, region = self._place(request)
        if region is None:
            raise invalid("A location is required.")
        return Key(project, region, name or request.match_info["name"])

    def _list(
        self,
        request: web.Request,
        kind: str,
        found: list[Document],
        show: Callable[[Document], Document] = lambda document: document,
    ) -> web.Response:
        found = list_parameters.select(found, request.query.get("labelSelector", ""))
        shown, more = list_parameters.page(
            found, request.query.get("limit", ""), request.query.get("continue", "")
        )
        metadata = {"continue": more} if more else {}
        return web.json_response(
            {
                "apiVersion": documents.API_VERSION,
                "kind": f"{kind}List",
                "metadata": metadata,
                "items": [show(document) for document in shown],
            }
        )


def _check_parameters(request: web.Request) -> None:
    for name in request.query:
        if name not in _PARAMETERS:
            raise invalid(
                f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query '
                "parameter.",
                name,
            )


def _dry_run(request: web.Request) -> bool:
    value = request.query.get("dryRun", "")
    if value not in ("", "all"):
        raise invalid("Expected 'all'.", "dryRun")
    return value == "all"


def _success() -> web.Response:
    return web.json_response({"status": "Success", "code": 200})
