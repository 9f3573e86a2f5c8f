"""Exchanges the credential of a provider for the identity that it stands for.

Source: https://cloud.google.com/iam/docs/workload-identity-federation. The descriptions of
refusals, the minute of leeway for clocks and the token's lifetime were measured at Google's by
others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import jwt

from emulator.identity import expressions
from emulator.identity.keys import ALGORITHM
from emulator.identity.pools import Pools
from emulator.identity.principals import Principal, federated
from emulator.identity.tokens import HOUR

Document = dict[str, Any]

_AUDIENCE = re.compile(
    r"//iam\.googleapis\.com/(?P<provider>(?P<pool>projects/\d+/locations/global"
    r"/workloadIdentityPools/[a-z0-9-]+)/providers/[a-z0-9-]+)"
)
_GITHUB = "https://token.actions.githubusercontent.com"
_LEEWAY = 60
_LONGEST_SUBJECT = 127


class Refused(Exception):
    """A credential that is not exchanged: `code` and `description` are RFC 6749 section 5.2's."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


class IssuerUnreachable(Exception):
    """An issuer whose discovery document or keys cannot be read."""


Keys = Callable[[Document], Awaitable[dict[str, jwt.PyJWK]]]
"""Returns the keys of an issuer, by key ID. Takes a provider's `oidc`; raises IssuerUnreachable."""


class Exchanged(NamedTuple):
    """The identity that a credential stands for, and for how many seconds."""

    principal: Principal
    seconds: float


class Federation:
    """Verifies the credentials of every provider.

    A provider that names GitHub's own issuer means the local one, at the URL `github`: no request
    leaves this machine. `keys_of` reads an issuer's keys.
    """

    def __init__(self, pools: Pools, github: str, keys_of: Keys) -> None:
        self._pools = pools
        self._github = github
        self._keys_of = keys_of

    async def exchange(self, audience: str, token: str) -> Exchanged:
        """Verify a credential and return the identity that it stands for.

        Args:
            audience: The provider's full name: //iam.googleapis.com/projects/…/providers/….
            token: The credential, an ID token.

        Raises:
            Refused: The credential is not valid here.
        """
        provider = self._provider(audience)
        claims = await self._verified(token, provider["name"], self._oidc(provider))
        variables: Document = {"assertion": claims}
        mapped = _mapped(provider["attributeMapping"], variables)
        condition = provider.get("attributeCondition")
        variables |= _as_variables(mapped)
        if condition and not _holds(condition, variables):
            raise Refused(
                "unauthorized_client",
                "The given credential is rejected by the attribute condition.",
            )
        attributes = {
            key.removeprefix("attribute."): value
            for key, value in mapped.items()
            if key.startswith("attribute.") and isinstance(value, str)
        }
        pool = provider["name"].partition("/providers/")[0]
        groups = mapped.get("google.groups") or []
        principal = federated(pool, mapped["google.subject"], attributes, groups)
        return Exchanged(principal, min(max(claims["exp"] - time.time(), _LEEWAY), HOUR))

    def _provider(self, audience: str) -> Document:
        name = _AUDIENCE.fullmatch(audience)
        if name is None:
            raise Refused(
                "invalid_request",
                'Invalid value for "audience". This value should be the full resource name of the '
                "Identity Provider. See https://cloud.google.com/iam/docs/reference/sts/rest/v1/"
                "TopLevel/token for the list of possible formats.",
            )
        provider = self._pools.usable_provider(name["pool"], name["provider"])
        if provider is None:
            raise Refused(
                "invalid_target",
                'The target service indicated by the "audience" parameters is invalid. This might '
                "either be because the pool or provider is disabled or deleted or because it "
                "doesn't exist.",
            )
        return provider

    def _oidc(self, provider: Document) -> Document:
        oidc: Document = provider["oidc"]
        return {**oidc, "issuerUri": self._github} if oidc["issuerUri"] == _GITHUB else oidc

    async def _verified(self, token: str, provider: str, oidc: Document) -> Document:
        """Return a token's claims; raises Refused unless all about it is valid.

        Args:
            token: The token.
            provider: The provider's name.
            oidc: The provider's `oidc`.
        """
        try:
            header = jwt.get_unverified_header(token)
            claims: Document = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            raise Refused("invalid_grant", "The ID Token is malformed; unable to parse.") from None
        issuer = oidc["issuerUri"]
        if claims.get("iss") != issuer:
            named = claims.get("iss", "null")
            raise Refused(
                "invalid_grant",
                f"The issuer in ID Token {named} does not match the expected one in config: "
                f"{issuer}.",
            )
        try:
            keys = await self._keys_of(oidc)
        except IssuerUnreachable:
            raise _no_key() from None
        # The token may name "none", or an HMAC with the public key as its secret.
        key = keys.get(str(header.get("kid")))
        if key is None or header.get("alg") != ALGORITHM:
            raise _no_key() if key is None else _unverifiable()
        audiences = oidc.get("allowedAudiences") or [
            f"https://iam.googleapis.com/{provider}",
            f"//iam.googleapis.com/{provider}",
        ]
        _check_token(token, key, audiences, issuer, claims)
        return claims


def _check_token(
    token: str, key: jwt.PyJWK, audiences: list[str], issuer: str, claims: Document
) -> None:
    """Check a token's signature, audience and times."""
    try:
        jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audiences,
            issuer=issuer,
            leeway=_LEEWAY,
            options={"require": ["exp", "iat"]},
        )
    except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError) as error:
        if getattr(error, "claim", "aud") == "aud":
            named = claims.get("aud", "")
            raise Refused(
                "invalid_grant",
                f"The audience in ID Token [{named}] does not match the expected audience.",
            ) from None
        raise _stale(claims) from None
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
        raise _stale(claims) from None
    except jwt.InvalidTokenError:
        raise _unverifiable() from None


def _no_key() -> Refused:
    return Refused("invalid_grant", "Error connecting to the given credential's issuer.")


def _unverifiable() -> Refused:
    return Refused("invalid_grant", "Unable to verify the ID Token signature.")


def _stale(claims: Document) -> Refused:
    issued = claims.get("iat", "null")
    return Refused("invalid_grant", f"ID Token issued at {issued} is stale to sign-in.")


def _mapped(mapping: dict[str, str], variables: Document) -> Document:
    """Return the attributes of a mapping, without those whose claims are missing."""
    mapped = {}
    for key, expression in mapping.items():
        try:
            mapped[key] = expressions.evaluate(expression, variables)
        except expressions.BadExpression:
            continue
    subject = mapped.get("google.subject")
    if not isinstance(subject, str) or not subject:
        raise Refused(
            "invalid_grant", "The mapped attribute google.subject must be a non-empty string."
        )
    if len(subject.encode()) > _LONGEST_SUBJECT:
        raise Refused(
            "invalid_grant",
            "The size of mapped attribute google.subject exceeds the 127 bytes limit. Either "
            "modify your attribute mapping or the incoming assertion to produce a mapped attribute "
            "that is less than 127 bytes.",
        )
    return mapped


def _as_variables(mapped: Document) -> Document:
    """Return mapped attributes as a condition reads them: `google.subject`, `attribute.NAME`."""
    variables: Document = {"google": {}, "attribute": {}}
    for key, value in mapped.items():
        group, _, name = key.partition(".")
        variables[group][name] = value
    return variables


def _holds(condition: str, variables: Document) -> bool:
    try:
        return expressions.evaluate(condition, variables) is True
    except expressions.BadExpression:
        return False
