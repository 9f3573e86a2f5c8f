"""Refuses what a caller may not, before the request reaches the room that would answer it."""

from __future__ import annotations

import json

from aiohttp import web

from emulator import routes
from emulator.errors import ApiError
from emulator.faults import INVOKER, TOKEN, Faults
from emulator.identity.access import Access, Document, denied
from emulator.identity.accounts import Accounts
from emulator.identity.invoker import is_open
from emulator.identity.principals import Principal, project_of
from emulator.identity.rules import PolicyRules
from emulator.names import Key, default_service_account, project_number
from emulator.projects import apis
from emulator.projects.models import Projects
from emulator.routes import Asks, Caller, Checks, Handler, On
from emulator.run.resources import Resources, service_of
from emulator.run.responses import region_of

_REGISTRY = "artifactregistry.googleapis.com"
_EXCHANGE = (
    "Token exchange failed for project '{}'. Caller does not have permission '{}'. To configure "
    "permissions, follow instructions at: "
    "https://cloud.google.com/artifact-registry/docs/access-control"
)
_PULL = "artifactregistry.repositories.downloadArtifacts"
_SAMPLES = "cloudrun"
"""The project of Google's sample images, which everybody may pull."""


class Guard:
    """The middleware of every API on the APIs' port. Without enforcement it lets all pass."""

    def __init__(
        self,
        access: Access,
        resources: Resources,
        projects: Projects,
        accounts: Accounts,
        rules: PolicyRules,
        faults: Faults,
        url: str,
    ) -> None:
        self._access = access
        self._resources = resources
        self._projects = projects
        self._accounts = accounts
        self._rules = rules
        self._faults = faults
        self._url = url

    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer as `handler` does, or refuse as the API in question would."""
        # Where nothing is served, a caller without a token is told nothing either.
        asks = routes.asked(request) or routes.CALLER
        if asks.on is On.NOTHING:
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
        """Raise ApiError unless the API is enabled, the caller may, and a policy can be set."""
        project = self._project(request)
        if project:
            self._projects.check_enabled(project, asks.api)
            self._faults.check_quota(asks.api, project)
        chain = self._chain(asks.on, request)
        caller = Caller(lambda permission: self._access.may(principal, permission, chain))
        routes.set_caller(request, caller)
        if asks.permission and not caller.may(asks.permission):
            raise denied(asks.permission, _words(asks, request))
        if asks.checks is Checks.DEPLOYMENT:
            await self._check_deployer(principal, request)
        elif asks.checks is Checks.POLICY:
            self._rules.check_policy(asks.on, f"projects/{project}", await _body(request))
        elif asks.checks is Checks.PERMISSIONS:
            self._rules.check_permissions(asks.on, await _body(request))

    def _project(self, request: web.Request) -> str | None:
        """The project that pays for a call: whoever is named by the caller, or the resource's."""
        match = request.match_info
        named = request.headers.get("X-Goog-User-Project") or match.get("project", "-")
        return project_of(match.get("email", "")) if named == "-" else named

    async def _check_logs(
        self, principal: Principal, permission: str, request: web.Request
    ) -> None:
        """Each of the projects asked about has to allow it."""
        body = await _body(request)
        ids = [str(name).partition("/")[2] for name in body.get("resourceNames") or []]
        for project in [*ids, *map(str, body.get("projectIds") or [])]:
            if not self._access.may(principal, permission, self._access.of_project(project)):
                raise denied(permission, _denied_on(permission, f"projects/{project}"))

    def _chain(self, on: On, request: web.Request) -> list[Document]:
        """The policies that count for what a request is about."""
        match = request.match_info
        if on is On.ACCOUNT:
            return self._access.of_account(match["email"])
        project = self._project_id(request)
        if on is On.REPOSITORY:
            return self._access.of_repository(project, match["repository"])
        if on is On.SECRET:
            return self._access.of_secret(project, match["name"])
        if on is On.PROJECT:
            return self._access.of_project(project)
        service = self._service(on, project, request)
        return self._access.of_service(service) if service else self._access.of_project(project)

    def _service(self, on: On, project: str, request: web.Request) -> Key | None:
        """The service that a request is about, or whose revision it is about."""
        region = request.match_info.get("region") or region_of(request, self._resources, project)
        key = Key(project, region, request.match_info.get("name", ""))
        if on is On.REVISION:
            revision = self._resources.revisions.get(key)
            return key.sibling(service_of(revision)) if revision else None
        return key if key in self._resources.services else None

    async def _check_deployer(self, principal: Principal, request: web.Request) -> None:
        """Whoever deploys must be allowed to use the revision's account, and a new image.

        Source: https://cloud.google.com/run/docs/reference/iam/roles#additional-configuration.
        """
        project = self._project_id(request)
        template = _template(await _body(request))
        email = str(template.get("serviceAccountName") or default_service_account(project))
        permission = "iam.serviceAccounts.actAs"
        may = self._access.may(principal, permission, self._access.of_account(email))
        if not may or not self._accounts.exists(email):
            raise denied(
                permission,
                f"Permission 'iam.serviceaccounts.actAs' denied on service account {email} (or it "
                "may not exist).",
            )
        service = self._service(On.SERVICE, project, request)
        current = self._resources.services[service] if service else {}
        self._check_opening(principal, project, service, await _body(request), current)
        permission = "artifactregistry.repositories.downloadArtifacts"
        for image in _images(template) - _images(_template(current)):
            name = image.partition("/")[2]
            if not self._may_in_repository(principal, permission, name):
                location = image.partition("-docker.pkg.dev/")[0]
                raise denied(permission, _registry_words(permission, name, location))

    def _check_opening(
        self,
        principal: Principal,
        project: str,
        service: Key | None,
        wanted: Document,
        current: Document,
    ) -> None:
        """Whoever lets everybody in, or stops to, must be allowed to change the policy as well.

        Source: https://cloud.google.com/run/docs/securing/managing-access#invoker_check.
        """
        if is_open(wanted) == is_open(current):
            return
        if is_open(wanted) and self._faults.get(INVOKER):
            raise _must_be_checked(project)
        of = self._access.of_service(service) if service else self._access.of_project(project)
        permission = "run.services.setIamPolicy"
        if not self._access.may(principal, permission, of):
            name = (wanted.get("metadata") or {}).get("name", "")
            resource = f"namespaces/{project}/services/{name}"
            raise denied(permission, _denied_on(permission, resource))

    async def _registry(
        self, permission: str, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """The registry has errors of its own, and tells Docker where to get a token."""
        try:
            principal = self._access.caller(request.headers.get("Authorization"))
        except ApiError as error:
            return _oci_error(401, "UNAUTHORIZED", error.message, self._challenge(request))
        if not permission:
            return await handler(request)
        name = request.match_info["name"]
        project = name.partition("/")[0]
        if not self._projects.is_enabled(project, _REGISTRY):
            disabled = apis.disabled(_REGISTRY, project_number(project))
            return _oci_error(403, "DENIED", disabled.message)
        if self._faults.get(TOKEN):
            return _oci_error(403, "DENIED", _EXCHANGE.format(project, permission))
        if not self._may_in_repository(principal, permission, name):
            return _oci_error(403, "DENIED", _registry_words(permission, name, "-"))
        mounted = request.query.get("from")
        pull = "artifactregistry.repositories.downloadArtifacts"
        if mounted and not self._may_in_repository(principal, pull, mounted):
            # No mount from what one may not read: an upload like any other.
            request = request.clone(rel_url=request.rel_url.with_query(None))
        return await handler(request)

    def _project_id(self, request: web.Request) -> str:
        return self._resources.project_id(self._projects.id_of(request.match_info["project"]))

    def _may_in_repository(self, principal: Principal, permission: str, name: str) -> bool:
        project, _, rest = name.partition("/")
        if project == _SAMPLES and permission == _PULL:
            return True
        chain = self._access.of_repository(project, rest.partition("/")[0])
        return self._access.may(principal, permission, chain)

    def _challenge(self, request: web.Request) -> dict[str, str]:
        """Source: https://distribution.github.io/distribution/spec/auth/token/."""
        return {"WWW-Authenticate": f'Bearer realm="{self._url}/v2/token",service="{request.host}"'}


def _must_be_checked(project: str) -> ApiError:
    """Recollected: the constraint is documented, its message in the Admin API is not."""
    constraint = "constraints/run.managed.requireInvokerIam"
    violation = {
        "type": constraint,
        "subject": f"orgpolicy:projects/{project}",
        "description": "The Invoker IAM check must be enabled.",
    }
    detail = {
        "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
        "violations": [violation],
    }
    message = f'Operation denied by org policy: ["{constraint}": "Invoker IAM is required."].'
    return ApiError("FAILED_PRECONDITION", message, [detail])


def _words(asks: Asks, request: web.Request) -> str:
    """Google's words for a missing permission; they differ from API to API."""
    if asks.on is On.ACCOUNT:
        return f"Permission '{asks.permission}' denied on resource (or it may not exist)."
    named = asks.resource.format_map(request.match_info)
    return _denied_on(asks.permission, named)


def _denied_on(permission: str, resource: str) -> str:
    rest = "resource may" if permission.startswith("run.") else "it may"
    return f"Permission '{permission}' denied on resource '{resource}' (or {rest} not exist)."


def _registry_words(permission: str, name: str, location: str) -> str:
    project, _, rest = name.partition("/")
    named = f"projects/{project}/locations/{location}/repositories/{rest.partition('/')[0]}"
    return f'Permission "{permission}" denied on resource "{named}" (or it may not exist)'


def _oci_error(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"errors": [{"code": code, "message": message}]}
    return web.json_response(body, status=status, headers=headers)


async def _body(request: web.Request) -> Document:
    try:
        body = json.loads(await request.read())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _template(service: Document) -> Document:
    """The specification of a service's template, or an empty one."""
    for step in ("spec", "template", "spec"):
        service = service.get(step) or {}
        if not isinstance(service, dict):
            return {}
    return service


def _images(template: Document) -> set[str]:
    containers = template.get("containers")
    found = [c.get("image") for c in containers or [] if isinstance(c, dict)]
    return {str(image) for image in found if image}
