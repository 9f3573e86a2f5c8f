"""Refuses requests whose caller lacks a permission, before they reach their handlers.

Also refuses calls to an API that is disabled or over its quota.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from aiohttp import web

from emulator import routes
from emulator.errors import ApiError
from emulator.faults.models import Faults
from emulator.faults.settings import TOKEN
from emulator.fields import typed
from emulator.identity.access import PULL, Document
from emulator.identity.models import Identity
from emulator.identity.principals import Principal, project_of
from emulator.identity.refusals import denied_on, denied_on_account, denied_on_image
from emulator.identity.services import Services
from emulator.names import Key, check_project, project_number
from emulator.permissions import CALLER, Asks, Checks, On
from emulator.projects import apis
from emulator.projects.models import Projects
from emulator.routes import Caller, Handler
from emulator.wire import json_object

_REGISTRY = "artifactregistry.googleapis.com"
_EXCHANGE = (
    "Token exchange failed for project '{}'. Caller does not have permission '{}'. To configure "
    "permissions, follow instructions at: "
    "https://cloud.google.com/artifact-registry/docs/access-control"
)


class _Named(TypedDict, total=False):
    """The projects that a request for log entries names."""

    resourceNames: list[str]
    projectIds: list[str]


class Guard:
    """The middleware of the APIs' port, at the base URL `url`.

    `bucket_project(name)` is the ID of the project that a bucket of Cloud Storage belongs to.
    """

    def __init__(
        self,
        identity: Identity,
        services: Services,
        projects: Projects,
        faults: Faults,
        url: str,
        bucket_project: Callable[[str], str],
    ) -> None:
        self._access = identity.access
        self._rules = identity.rules
        self._deployers = identity.deployers
        self._services = services
        self._projects = projects
        self._faults = faults
        self._url = url
        self._bucket_project = bucket_project

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer as `handler` does, or refuse as the API would."""
        # Without a token, a path that is not served looks like one that is.
        asks = routes.asked(request) or CALLER
        if asks.on in (On.NOTHING, On.THIS_MACHINE):
            return await handler(request)
        if asks.on is On.IMAGE:
            return await self._registry(asks.permission, request, handler)
        principal = self._access.caller(request.headers.get("Authorization"))
        if asks.on is On.LOGS:
            await self._check_logs(principal, asks.permission, request)
        elif asks.on is not On.CALLER:
            await self._check(principal, asks, request)
        return await handler(request)

    async def _check(self, principal: Principal, asks: Asks, request: web.Request) -> None:
        """Raise ApiError unless the API is enabled, the caller may, and the body passes."""
        project = self._billed(request)
        if project:
            self._projects.check_enabled(project, asks.api)
            self._faults.check_quota(asks.api, project)
        chain = self._chain(asks.on, request)
        caller = Caller(lambda permission: self._access.may(principal, permission, chain))
        routes.set_caller(request, caller)
        if asks.permission and not caller.may(asks.permission):
            if asks.on is On.ACCOUNT:
                raise denied_on_account(asks.permission)
            raise denied_on(asks.permission, asks.resource.format_map(request.match_info))
        if asks.checks is Checks.DEPLOYMENT:
            project_id = self._project(request)
            service = self._service(asks.on, project_id, request)
            self._deployers.check(principal, project_id, service, await _body(request))
        elif asks.checks is Checks.BUILD:
            self._deployers.check_build(principal, await _body(request))
        elif asks.checks is Checks.POLICY:
            of = self._owning(request) or project
            self._rules.check_policy(asks.on, f"projects/{of}", await _body(request))
        elif asks.checks is Checks.PERMISSIONS:
            self._rules.check_permissions(asks.on, await _body(request))

    def _billed(self, request: web.Request) -> str | None:
        """Return the project that pays for a call: the one that its caller names, or its own."""
        return request.headers.get("X-Goog-User-Project") or self._owning(request)

    def _owning(self, request: web.Request) -> str | None:
        """Return the project of a request's resource, as its path names it."""
        match = request.match_info
        if "bucket" in match:
            return self._bucket_project(match["bucket"])
        # Cloud Storage names the project of a bucket in the query.
        named = match.get("project") or request.query.get("project", "-")
        return project_of(match.get("email", "")) if named == "-" else check_project(named)

    async def _check_logs(
        self, principal: Principal, permission: str, request: web.Request
    ) -> None:
        body = await _body(request)
        named = typed(body, _Named)
        ids = [name.partition("/")[2] for name in named.get("resourceNames", [])]
        for project in [*ids, *named.get("projectIds", [])]:
            if not self._access.may(principal, permission, self._access.of_project(project)):
                raise denied_on(permission, f"projects/{project}")

    def _chain(self, on: On, request: web.Request) -> list[Document]:
        """Return the policies that apply to a request's resource."""
        match = request.match_info
        if on is On.ACCOUNT:
            return self._access.of_account(match["email"])
        project = self._project(request)
        if on in (On.BUCKET, On.OBJECT):
            return self._access.of_bucket(project, match["bucket"])
        if on is On.REPOSITORY:
            return self._access.of_repository(project, match["repository"])
        if on is On.SECRET:
            return self._access.of_secret(project, match["name"])
        service = self._service(on, project, request)
        return self._access.of_service(service) if service else self._access.of_project(project)

    def _project(self, request: web.Request) -> str:
        """Return the ID of the project that a request is about."""
        owning = self._owning(request)
        return self._services.project_id(self._projects.id_of(owning or ""))

    def _service(self, on: On, project: str, request: web.Request) -> Key | None:
        """Return the existing service that a request is about, or whose revision it is about."""
        if on not in (On.SERVICE, On.REVISION):
            return None
        match = request.match_info
        region = match.get("region") or self._services.region_of(request.host, project)
        key = Key(project, region, match["name"])
        if on is On.REVISION:
            return self._services.service_of(key)
        return key if self._services.service(key) else None

    async def _registry(
        self, permission: str, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Check a request of the registry's protocol, which has an error format of its own."""
        try:
            principal = self._access.caller(request.headers.get("Authorization"))
        except ApiError as error:
            return _oci_error(401, "UNAUTHORIZED", error.message, self._challenge(request))
        if not permission:
            return await handler(request)
        image = request.match_info["name"]
        project = image.partition("/")[0]
        if not self._projects.is_enabled(project, _REGISTRY):
            return _denied(apis.disabled(_REGISTRY, project_number(project)).message)
        if self._faults.is_active(TOKEN):
            return _denied(_EXCHANGE.format(project, permission))
        if not self._access.may_on_image(principal, permission, image):
            return _denied(denied_on_image(permission, image, "-").message)
        source = request.query.get("from")
        if source and not self._access.may_on_image(principal, PULL, source):
            # The caller may not read the layer to mount: the upload starts without it.
            request = request.clone(rel_url=request.rel_url.with_query(None))
        return await handler(request)

    def _challenge(self, request: web.Request) -> dict[str, str]:
        """Tell Docker where to get a token.

        Source: https://distribution.github.io/distribution/spec/auth/token/.
        """
        return {"WWW-Authenticate": f'Bearer realm="{self._url}/v2/token",service="{request.host}"'}


def _denied(message: str) -> web.Response:
    return _oci_error(403, "DENIED", message)


def _oci_error(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"errors": [{"code": code, "message": message}]}
    return web.json_response(body, status=status, headers=headers)


async def _body(request: web.Request) -> Document:
    """Read a body to check it; the handler reports one that is malformed."""
    try:
        return await json_object(request)
    except ApiError:
        return {}
