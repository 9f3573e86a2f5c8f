"""IAM on the wire: service accounts, workload identity pools, and policies."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from emulator.errors import ApiError, invalid
from emulator.identity import policies
from emulator.identity.models import Identity
from emulator.identity.pools import is_provider_name
from emulator.identity.principals import checked_email
from emulator.identity.roles import ROLES
from emulator.operations import Operations
from emulator.permissions import On
from emulator.policy import asked_permissions
from emulator.routes import may
from emulator.wire import json_object, page, page_size

_PAGE = 50


class Responses:
    """The handlers of IAM's API, and of every policy except those of services."""

    def __init__(self, identity: Identity, operations: Operations) -> None:
        self._accounts = identity.accounts
        self._pools = identity.pools
        self._roles = identity.roles
        self._policies = identity.policies
        self._rules = identity.rules
        self._operations = operations

    # Service accounts

    async def create_account(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.create`."""
        project = request.match_info["project"]
        return web.json_response(self._accounts.create(project, await json_object(request)))

    async def get_account(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.get`."""
        return web.json_response(self._accounts.get(request.match_info["email"]))

    async def list_accounts(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.list`."""
        found = self._accounts.all(request.match_info["project"])
        return _page(request, "accounts", found)

    async def delete_account(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.delete`: its policy goes with it."""
        email = request.match_info["email"]
        self._accounts.delete(email)
        self._policies.forget(policies.account(email))
        return web.json_response({})

    # Custom roles

    async def create_role(self, request: web.Request) -> web.Response:
        """`projects.roles.create`."""
        project = request.match_info["project"]
        return web.json_response(self._roles.create(project, await json_object(request)))

    async def get_role(self, request: web.Request) -> web.Response:
        """`projects.roles.get`, also of a deleted one."""
        return web.json_response(self._role(request))

    async def list_roles(self, request: web.Request) -> web.Response:
        """`projects.roles.list`: without permissions unless the view is FULL."""
        found = self._roles.all(request.match_info["project"], deleted=_deleted(request))
        if request.query.get("view") != "FULL":
            hidden = "includedPermissions"
            found = [{k: v for k, v in one.items() if k != hidden} for one in found]
        return _page(request, "roles", found)

    async def list_predefined_roles(self, request: web.Request) -> web.Response:
        """`roles.list`: those that grant something here, without their permissions."""
        return _page(request, "roles", [{"name": name} for name in sorted(ROLES)])

    async def patch_role(self, request: web.Request) -> web.Response:
        """`projects.roles.patch`."""
        body, mask = await json_object(request), request.query.get("updateMask", "")
        return web.json_response(self._roles.patch(self._role(request), body, mask))

    async def delete_role(self, request: web.Request) -> web.Response:
        """`projects.roles.delete`."""
        return web.json_response(self._roles.set_deleted(self._role(request), deleted=True))

    async def undelete_role(self, request: web.Request) -> web.Response:
        """`projects.roles.undelete`."""
        return web.json_response(self._roles.set_deleted(self._role(request), deleted=False))

    def _role(self, request: web.Request) -> dict[str, Any]:
        match = request.match_info
        return self._roles.get(match["project"], match["role"])

    # Workload identity pools and their providers

    async def create_pool(self, request: web.Request) -> web.Response:
        """`projects.locations.workloadIdentityPools.create`."""
        pool = request.query.get("workloadIdentityPoolId", "")
        project = request.match_info["project"]
        return self._started(self._pools.create_pool(project, pool, await json_object(request)))

    async def create_provider(self, request: web.Request) -> web.Response:
        """`….workloadIdentityPools.providers.create`."""
        provider = request.query.get("workloadIdentityPoolProviderId", "")
        match, body = request.match_info, await json_object(request)
        made = self._pools.create_provider(match["project"], match["pool"], provider, body)
        return self._started(made)

    async def get_federation(self, request: web.Request) -> web.Response:
        """Get a pool or provider, also a deleted one."""
        return web.json_response(self._found(request))

    async def list_pools(self, request: web.Request) -> web.Response:
        """`projects.locations.workloadIdentityPools.list`."""
        found = self._pools.pools(request.match_info["project"], deleted=_deleted(request))
        return _page(request, "workloadIdentityPools", found)

    async def list_providers(self, request: web.Request) -> web.Response:
        """`….workloadIdentityPools.providers.list`."""
        match = request.match_info
        found = self._pools.providers(match["project"], match["pool"], deleted=_deleted(request))
        return _page(request, "workloadIdentityPoolProviders", found)

    async def patch_federation(self, request: web.Request) -> web.Response:
        """Change a pool or provider."""
        mask = request.query.get("updateMask", "")
        body = await json_object(request)
        return self._started(self._pools.patch(self._found(request), body, mask))

    async def delete_federation(self, request: web.Request) -> web.Response:
        """Delete a pool or provider."""
        return self._started(self._pools.delete(self._found(request)))

    async def undelete_federation(self, request: web.Request) -> web.Response:
        """Restore a pool or provider."""
        return self._started(self._pools.undelete(self._found(request)))

    async def operation(self, request: web.Request) -> web.Response:
        """Get an operation of a pool or provider."""
        name = f"{self._found(request)['name']}/operations/{request.match_info['operation']}"
        return web.json_response(self._operations.get(name))

    def _found(self, request: web.Request) -> dict[str, Any]:
        match = request.match_info
        if "provider" in match:
            return self._pools.provider(match["project"], match["pool"], match["provider"])
        return self._pools.pool(match["project"], match["pool"])

    def _started(self, document: dict[str, Any]) -> web.Response:
        kind = "WorkloadIdentityPool"
        kind += "Provider" if is_provider_name(document["name"]) else ""
        parent = f"{document['name']}/"
        return web.json_response(self._operations.start(parent, f"google.iam.v1.{kind}", document))

    # Policies

    async def get_policy(self, request: web.Request) -> web.Response:
        """`getIamPolicy` of a project, service account, repository or secret."""
        self._rules.check_exists(*_place(request))
        return web.json_response(self._policies.get(_resource(request)))

    async def set_policy(self, request: web.Request) -> web.Response:
        """`setIamPolicy` of a project, service account, repository or secret."""
        self._rules.check_exists(*_place(request))
        body = await json_object(request)
        return web.json_response(self._policies.set(_resource(request), body))

    async def test_permissions(self, request: web.Request) -> web.Response:
        """`testIamPermissions` of a project, service account, repository or secret.

        What does not exist has no permissions, except a service account, which is an error.
        """
        asked = asked_permissions(await json_object(request))
        on, project, name = _place(request)
        try:
            self._rules.check_exists(on, project, name)
        except ApiError:
            if on is On.ACCOUNT:
                raise
            return web.json_response({})
        held = [*filter(may(request), asked)]
        return web.json_response({"permissions": held} if held else {})

    async def get_bucket_policy(self, request: web.Request) -> web.Response:
        """`getIamPolicy` of a bucket, in the form of Cloud Storage's own API."""
        name = request.match_info["bucket"]
        return web.json_response(_of_bucket(name, self._policies.get(policies.bucket(name))))

    async def set_bucket_policy(self, request: web.Request) -> web.Response:
        """`setIamPolicy` of a bucket: the body is the policy itself."""
        name, body = request.match_info["bucket"], {"policy": await json_object(request)}
        self._rules.check_policy(On.BUCKET, f"buckets/{name}", body)
        return web.json_response(_of_bucket(name, self._policies.set(policies.bucket(name), body)))

    async def test_bucket_permissions(self, request: web.Request) -> web.Response:
        """`testIamPermissions` of a bucket: the query names the permissions."""
        asked = request.query.getall("permissions", [])
        if not asked:
            raise invalid("Required parameter: permissions")
        self._rules.check_permissions(On.BUCKET, {"permissions": asked})
        held = [*filter(may(request), asked)]
        answer = {"kind": "storage#testIamPermissionsResponse"}
        return web.json_response({**answer, "permissions": held} if held else answer)


def _of_bucket(name: str, policy: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "storage#policy", "resourceId": f"projects/_/buckets/{name}", **policy}


def _place(request: web.Request) -> tuple[On, str, str]:
    """Return the kind, the project and the name of the resource that a request is about."""
    match = request.match_info
    project = match["project"]
    if "email" in match:
        return On.ACCOUNT, project, match["email"]
    if "repository" in match:
        return On.REPOSITORY, project, match["repository"]
    if "name" in match:
        return On.SECRET, project, match["name"]
    return On.PROJECT, project, project


def _resource(request: web.Request) -> str:
    """Return the resource's name among the policies."""
    on, project, name = _place(request)
    if on is On.ACCOUNT:
        return policies.account(checked_email(name))
    if on is On.REPOSITORY:
        return policies.repository(project, name)
    if on is On.SECRET:
        return policies.secret(project, name)
    return policies.project(project)


def _deleted(request: web.Request) -> bool:
    return request.query.get("showDeleted", "").lower() == "true"


def _page(request: web.Request, field: str, found: list[dict[str, Any]]) -> web.Response:
    size = page_size(request.query.get("pageSize"), _PAGE)
    return web.json_response(page(request, field, found, size))
