"""Tokens on the wire: Security Token Service, IAM Credentials, Docker's token realm.

Sources: https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token (RFC 8693) and
https://cloud.google.com/iam/docs/reference/credentials/rest.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict

from aiohttp import web

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.fields import check_known, snake, typed
from emulator.identity.federation import Refused
from emulator.identity.models import Identity
from emulator.identity.principals import service_account
from emulator.identity.tokens import HOUR, BadToken
from emulator.wire import json_object

_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  (a type's name)
_SUBJECTS = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")


class _Generate(TypedDict, total=False):
    """The types of the fields of generateAccessToken and generateIdToken."""

    scope: list[str]
    lifetime: str
    delegates: list[str]
    audience: str
    includeEmail: bool


class TokenResponses:
    """The handlers that return tokens, and the keys that verify them."""

    def __init__(self, identity: Identity) -> None:
        self._federation = identity.federation
        self._accounts = identity.accounts
        self._access = identity.access
        self._tokens = identity.tokens
        self._ids = identity.ids

    async def token(self, request: web.Request) -> web.Response:
        """`POST /v1/token`: exchange a provider's credential for a federated access token."""
        try:
            asked = await _parameters(request)
            if asked("grantType") != _GRANT:
                raise Refused("unsupported_grant_type", f"Expected grant_type {_GRANT}.")
            if asked("requestedTokenType") != _ACCESS_TOKEN:
                raise Refused("invalid_request", f"Expected requested_token_type {_ACCESS_TOKEN}.")
            if asked("subjectTokenType") not in _SUBJECTS:
                raise Refused("invalid_request", "Invalid value for subject_token_type.")
            if not asked("scope"):
                raise Refused("invalid_scope", "A scope is required.")
            found = await self._federation.exchange(asked("audience"), asked("subjectToken"))
        except Refused as refused:
            body = {"error": refused.code, "error_description": refused.description}
            return web.json_response(body, status=400)
        return web.json_response(
            {
                "access_token": self._tokens.make(found.principal, found.seconds),
                "issued_token_type": _ACCESS_TOKEN,
                "token_type": "Bearer",
                "expires_in": int(found.seconds),
            }
        )

    async def generate_access_token(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.generateAccessToken`."""
        body = _fields(await json_object(request), {"scope", "lifetime", "delegates"})
        if not body.get("scope"):
            raise invalid("The scope is required.", "scope")
        self._check_exists(request)
        seconds = _lifetime(body.get("lifetime") or f"{HOUR}s")
        token = self._tokens.make(service_account(request.match_info["email"]), seconds)
        until = datetime.fromtimestamp(time.time() + seconds, UTC)
        return web.json_response(
            {"accessToken": token, "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
        )

    async def generate_id_token(self, request: web.Request) -> web.Response:
        """`projects.serviceAccounts.generateIdToken`."""
        body = _fields(await json_object(request), {"audience", "includeEmail", "delegates"})
        audience = body.get("audience")
        if not audience:
            raise invalid("The audience is required.", "audience")
        self._check_exists(request)
        email = str(service_account(request.match_info["email"]).email)
        include = body.get("includeEmail", False)
        return web.json_response({"token": self._ids.make(email, audience, include_email=include)})

    def _check_exists(self, request: web.Request) -> None:
        email = request.match_info["email"]
        if not self._accounts.exists(email):
            raise ApiError("NOT_FOUND", f"Not found; Gaia id not found for email {email}")

    async def keys(self, _request: web.Request) -> web.Response:
        """Get the keys of ID tokens, as from https://www.googleapis.com/oauth2/v3/certs."""
        return web.json_response(self._ids.key.jwks())

    async def token_info(self, request: web.Request) -> web.Response:
        """Get the account of an access token, as from https://oauth2.googleapis.com/tokeninfo."""
        try:
            form = await _form(request)
            principal = self._tokens.principal(str(form.get("access_token", "")))
        except (BadToken, Refused):
            body = {"error": "invalid_token", "error_description": "Invalid Value"}
            return web.json_response(body, status=400)
        return web.json_response({"email": principal.email} if principal.email else {})

    async def docker_token(self, request: web.Request) -> web.Response:
        """Get the token that Docker sends after `docker login -u oauth2accesstoken`: the same one.

        Source: https://cloud.google.com/artifact-registry/docs/docker/authentication#token.
        """
        try:
            basic = request.headers.get("Authorization", "").removeprefix("Basic ")
            user, _, token = base64.b64decode(basic, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            user = token = ""
        if user != "oauth2accesstoken":
            token = ""
        self._access.caller(f"Bearer {token}")
        return web.json_response({"token": token, "expires_in": HOUR})


class _Parameters:
    """The parameters of an exchange, by their names in JSON; "" for a missing one."""

    def __init__(self, sent: dict[str, Any]) -> None:
        self._sent = sent

    def __call__(self, name: str) -> str:
        return str(self._sent.get(name) or self._sent.get(snake(name)) or "")


async def _parameters(request: web.Request) -> _Parameters:
    """Read a form with names in snake case (RFC 8693), or JSON with either form (sts.v1)."""
    if request.content_type == "application/json":
        try:
            return _Parameters(await json_object(request))
        except ApiError as error:
            raise Refused("invalid_request", error.message) from None
    form = await _form(request)
    return _Parameters({name: value for name, value in form.items() if isinstance(value, str)})


async def _form(request: web.Request) -> Mapping[str, Any]:
    """Read a form; raise Refused for a body that is none."""
    try:
        return await request.post()
    except ValueError as error:
        raise Refused("invalid_request", f"The body is not a form: {error}") from None


def _fields(body: dict[str, Any], known: set[str]) -> dict[str, Any]:
    check_known(body, known)
    body = typed(body, _Generate)
    if body.get("delegates"):
        raise invalid("Delegation chains are not supported by the local Cloud Run.", "delegates")
    return body


def _lifetime(text: str) -> float:
    try:
        seconds = clock.seconds(text)
    except ValueError:
        raise invalid("Expected seconds, such as 300s.", "lifetime") from None
    if seconds <= 0:
        raise invalid("Lifetime of access token must be larger then zero.")
    if seconds > HOUR:
        raise invalid(
            "Access tokens can not have lifetimes of more than 1 hour. Use the Org Policy "
            "Constraint constraints/iam.allowServiceAccountCredentialLifetimeExtension to allow "
            "up to 12 hours."
        )
    return seconds
