"""The local OIDC issuer on the wire, and tokens for the user of this local Cloud Run.

The issuer is below `/_github/`, where others reach it as they reach GitHub's. What only the user of
this machine may do is below `/_local/`.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from emulator.errors import ApiError, invalid
from emulator.identity.models import Identity
from emulator.identity.principals import Principal, checked_email
from emulator.identity.tokens import HOUR
from emulator.wire import json_object


class LocalResponses:
    """The handlers of the issuer, and of identity's part of `/_local/`."""

    def __init__(self, identity: Identity) -> None:
        self._issuer = identity.issuer
        self._tokens = identity.tokens
        self._ids = identity.ids

    async def discovery(self, _request: web.Request) -> web.Response:
        """Get the issuer's discovery document."""
        return web.json_response(self._issuer.discovery())

    async def jwks(self, _request: web.Request) -> web.Response:
        """Get the issuer's keys."""
        return web.json_response(self._issuer.key.jwks())

    async def start_job(self, request: web.Request) -> web.Response:
        """Start a job: the body holds claims, the answer its environment variables."""
        return web.json_response(self._issuer.start_job(await json_object(request)))

    async def job_token(self, request: web.Request) -> web.Response:
        """Get a job's token, as from ACTIONS_ID_TOKEN_REQUEST_URL."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise ApiError("UNAUTHENTICATED", "A bearer token is required.")
        value = self._issuer.token(token, request.query.get("audience"))
        return web.json_response({"value": value, "count": len(value)})

    async def access_token(self, request: web.Request) -> web.Response:
        """Get an access token for a user or service account: `{"member": "user:…"}`."""
        member, _ = _member(await json_object(request))
        token = self._tokens.make(Principal(member), HOUR)
        return web.json_response({"access_token": token, "expires_in": HOUR})

    async def id_token(self, request: web.Request) -> web.Response:
        """Get an ID token in plain text: `{"member": "user:…", "audience": URL}`.

        Google makes none of a user for an audience of their choice: gcloud's own, which Cloud Run
        accepts, has gcloud's.
        """
        body = await json_object(request)
        member, email = _member(body)
        audience = body.get("audience")
        if not isinstance(audience, str) or not audience:
            raise invalid("The audience is required: the service's own URL.", "audience")
        is_user = member.startswith("user:")
        return web.Response(text=self._ids.make(email, audience, include_email=True, user=is_user))


def _member(body: dict[str, Any]) -> tuple[str, str]:
    """Return the member that a request names, and its e-mail."""
    member = str(body.get("member", ""))
    kind, _, email = member.partition(":")
    if kind not in ("user", "serviceAccount"):
        raise invalid("Expected user:EMAIL or serviceAccount:EMAIL.", "member")
    return member, checked_email(email)
