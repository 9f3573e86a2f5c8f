"""IAM, its policies, and the local issuer on the wire."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from emulator.errors import ApiError, invalid
from emulator.identity import policies
from emulator.identity.federation import Federation
from emulator.identity.github import Issuer
from emulator.identity.guard import MAY
from emulator.identity.policies import Policies
from emulator.identity.principals import Principal, checked_email
from emulator.identity.tokens import HOUR, AccessTokens


class Responses:
    """The handlers of IAM's API, of every policy but services', and of `/_local/`."""

    def __init__(
        self, federation: Federation, kept: Policies, issuer: Issuer, tokens: AccessTokens
    ) -> None:
        self._federation = federation
        self._policies = kept
        self._issuer = issuer
        self._tokens = tokens

    # Workload identity pools

    async def create_pool(self, request: web.Request) -> web.Response:
        """`projects.locations.workloadIdentityPools.create`; its operation is done at once."""
        pool = request.query.get("workloadIdentityPoolId", "")
        project = request.match_info["project"]
        return _done(self._federation.create_pool(project, pool, await body_of(request)))

    async def get_pool(self, request: web.Request) -> web.Response:
        """One pool."""
        match = request.match_info
        return web.json_response(self._federation.pool(match["project"], match["pool"]))

    async def create_provider(self, request: web.Request) -> web.Response:
        """`….workloadIdentityPools.providers.create`; its operation is done at once."""
        provider = request.query.get("workloadIdentityPoolProviderId", "")
        match, body = request.match_info, await body_of(request)
        made = self._federation.create_provider(match["project"], match["pool"], provider, body)
        return _done(made)

    async def get_provider(self, request: web.Request) -> web.Response:
        """One provider."""
        match = request.match_info
        found = self._federation.provider(match["project"], match["pool"], match["provider"])
        return web.json_response(found)

    # Policies

    async def get_policy(self, request: web.Request) -> web.Response:
        """`getIamPolicy` of a project, service account or repository."""
        return web.json_response(self._policies.get(_resource(request)))

    async def set_policy(self, request: web.Request) -> web.Response:
        """`setIamPolicy` of a project, service account or repository."""
        body = await body_of(request)
        return web.json_response(self._policies.set(_resource(request), body))

    async def test_permissions(self, request: web.Request) -> web.Response:
        """`testIamPermissions` of a project, service account or repository."""
        asked = (await body_of(request)).get("permissions") or []
        may = request.get(MAY, lambda _permission: True)
        held = [permission for permission in asked if may(permission)]
        return web.json_response({"permissions": held} if held else {})

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


def _done(document: dict[str, Any]) -> web.Response:
    name = f"{document['name']}/operations/done"
    return web.json_response({"name": name, "done": True, "response": document})
