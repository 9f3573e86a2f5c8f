"""IAM, its policies, and the local issuer on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from emulator.errors import ApiError, invalid
from emulator.identity import policies
from emulator.identity.accounts import Accounts
from emulator.identity.federation import Federation
from emulator.identity.github import Issuer
from emulator.identity.policies import Policies
from emulator.identity.principals import Principal, checked_email
from emulator.identity.tokens import HOUR, AccessTokens
from emulator.names import project_number
from emulator.operations import Operations
from emulator.routes import On, may

_PAGE = 50


class Responses:
    """The handlers of IAM's API, of every policy but services', and of `/_local/`.

    `is_there(kind, project, name)` says whether a repository or secret is there.
    """

    def __init__(
        self,
        federation: Federation,
        accounts: Accounts,
        kept: Policies,
        issuer: Issuer,
        tokens: AccessTokens,
        operations: Operations,
        is_there: Callable[[On, str, str], bool],
    ) -> None:
        self._federation = federation
        self._accounts = accounts
        self._policies = kept
        self._issuer = issuer
        self._tokens = tokens
        self._operations = operations
        self._is_there = is_there

    # Service accounts

    async def create_account(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.create`."""
        project = request.match_info["project"]
        return web.json_response(self._accounts.create(project, await body_of(request)))

    async def get_account(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.get`."""
        return web.json_response(self._accounts.get(request.match_info["email"]))

    async def list_accounts(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.list`."""
        found = self._accounts.all(request.match_info["project"])
        return web.json_response(_page(request, "accounts", found))

    async def delete_account(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.delete`: its policy goes with it."""
        email = request.match_info["email"]
        self._accounts.delete(email)
        self._policies.forget(policies.account(email))
        return web.json_response({})

    # Workload identity pools and their providers

    async def create_pool(self, request: web.Request) -> web.Response:
        """`projects.locations.workloadIdentityPools.create`."""
        pool = request.query.get("workloadIdentityPoolId", "")
        project = request.match_info["project"]
        return self._started(self._federation.create_pool(project, pool, await body_of(request)))

    async def create_provider(self, request: web.Request) -> web.Response:
        """`….workloadIdentityPools.providers.create`."""
        provider = request.query.get("workloadIdentityPoolProviderId", "")
        match, body = request.match_info, await body_of(request)
        made = self._federation.create_provider(match["project"], match["pool"], provider, body)
        return self._started(made)

    async def get_federation(self, request: web.Request) -> web.Response:
        """One pool or provider, also a deleted one."""
        return web.json_response(self._found(request))

    async def list_pools(self, request: web.Request) -> web.Response:
        """`projects.locations.workloadIdentityPools.list`."""
        found = self._federation.pools(request.match_info["project"], deleted=_deleted(request))
        return web.json_response(_page(request, "workloadIdentityPools", found))

    async def list_providers(self, request: web.Request) -> web.Response:
        """`….workloadIdentityPools.providers.list`."""
        match = request.match_info
        found = self._federation.providers(
            match["project"], match["pool"], deleted=_deleted(request)
        )
        return web.json_response(_page(request, "workloadIdentityPoolProviders", found))

    async def patch_federation(self, request: web.Request) -> web.Response:
        """Change a pool or provider."""
        mask = request.query.get("updateMask", "")
        body = await body_of(request)
        return self._started(self._federation.patch(self._found(request), body, mask))

    async def delete_federation(self, request: web.Request) -> web.Response:
        """Delete a pool or provider."""
        return self._started(self._federation.delete(self._found(request)))

    async def undelete_federation(self, request: web.Request) -> web.Response:
        """Bring a pool or provider back."""
        return self._started(self._federation.undelete(self._found(request)))

    async def operation(self, request: web.Request) -> web.Response:
        """The operation of a pool or provider."""
        name = f"{self._found(request)['name']}/operations/{request.match_info['operation']}"
        return web.json_response(self._operations.get(name))

    def _found(self, request: web.Request) -> dict[str, Any]:
        match = request.match_info
        if "provider" in match:
            return self._federation.provider(match["project"], match["pool"], match["provider"])
        return self._federation.pool(match["project"], match["pool"])

    def _started(self, document: dict[str, Any]) -> web.Response:
        kind = "WorkloadIdentityPool"
        kind += "Provider" if "/providers/" in document["name"] else ""
        parent = f"{document['name']}/"
        return web.json_response(self._operations.start(parent, f"google.iam.v1.{kind}", document))

    # Policies

    async def get_policy(self, request: web.Request) -> web.Response:
        """`getIamPolicy` of a project, service account, repository or secret."""
        self._check_there(request)
        return web.json_response(self._policies.get(_resource(request)))

    async def set_policy(self, request: web.Request) -> web.Response:
        """`setIamPolicy` of a project, service account, repository or secret."""
        self._check_there(request)
        body = await body_of(request)
        return web.json_response(self._policies.set(_resource(request), body))

    async def test_permissions(self, request: web.Request) -> web.Response:
        """`testIamPermissions` of a project, service account, repository or secret.

        What is not there has no permissions; only an account that is not there is an error.
        """
        asked = (await body_of(request)).get("permissions") or []
        try:
            self._check_there(request)
        except ApiError:
            if "email" in request.match_info:
                raise
            return web.json_response({})
        held = [*filter(may(request), asked)]
        return web.json_response({"permissions": held} if held else {})

    def own(self, project: str, member: str) -> None:
        """Make a user the owner of a project that was made."""
        binding = {"role": "roles/owner", "members": [member]}
        self._policies.set(policies.project(project), {"policy": {"bindings": [binding]}})

    def _check_there(self, request: web.Request) -> None:
        """Raise NOT_FOUND for the policy of what is not there."""
        match = request.match_info
        if "email" in match:
            self._accounts.check_exists(match["email"])
            return
        kind = On.REPOSITORY if "repository" in match else On.SECRET
        name = match.get("repository") or match.get("name")
        if name and not self._is_there(kind, match["project"], name):
            number = project_number(match["project"])
            raise ApiError(
                "NOT_FOUND",
                f"Secret [projects/{number}/secrets/{name}] not found."
                if kind is On.SECRET
                else "Requested entity was not found.",
            )

    # The local issuer, and tokens for whoever runs the local Cloud Run

    async def discovery(self, _request: web.Request) -> web.Response:
        """The issuer's discovery document."""
        return web.json_response(self._issuer.discovery())

    async def jwks(self, _request: web.Request) -> web.Response:
        """The issuer's keys."""
        return web.json_response(self._issuer.key.jwks())

    async def start_job(self, request: web.Request) -> web.Response:
        """Set a job up: the body holds claims, the answer its environment variables."""
        return web.json_response(self._issuer.start_job(await body_of(request)))

    async def job_token(self, request: web.Request) -> web.Response:
        """A job's token, as behind ACTIONS_ID_TOKEN_REQUEST_URL."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise ApiError("UNAUTHENTICATED", "A bearer token is required.")
        value = self._issuer.token(token, request.query.get("audience"))
        return web.json_response({"value": value, "count": len(value)})

    async def access_token(self, request: web.Request) -> web.Response:
        """An access token for a user or service account: `{"member": "user:…"}`."""
        member = str((await body_of(request)).get("member", ""))
        kind, _, email = member.partition(":")
        if kind not in ("user", "serviceAccount"):
            raise invalid("Expected user:EMAIL or serviceAccount:EMAIL.", "member")
        checked_email(email)
        token = self._tokens.make(Principal(member), HOUR)
        return web.json_response({"access_token": token, "expires_in": HOUR})


async def body_of(request: web.Request) -> dict[str, Any]:
    """A request's JSON object, an empty one for an empty body; raises ApiError."""
    contents = await request.read()
    body = json.loads(contents) if contents else {}
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    return body


def _resource(request: web.Request) -> str:
    match = request.match_info
    if "email" in match:
        return policies.account(checked_email(match["email"]))
    if "repository" in match:
        return policies.repository(match["project"], match["repository"])
    if "name" in match:
        return policies.secret(match["project"], match["name"])
    return policies.project(match["project"])


def _deleted(request: web.Request) -> bool:
    return request.query.get("showDeleted", "").lower() == "true"


def _page(request: web.Request, field: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """A page of a list that is sorted by name; the token is the last name shown."""
    size = request.query.get("pageSize") or "0"
    if not size.isdecimal():
        raise invalid("Expected a number.", "pageSize")
    found = [one for one in found if one["name"] > request.query.get("pageToken", "")]
    page = found[: int(size) or _PAGE]
    more = {"nextPageToken": page[-1]["name"]} if len(found) > len(page) else {}
    return {**({field: page} if page else {}), **more}
