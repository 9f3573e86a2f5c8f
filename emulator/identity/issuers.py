"""Reads the keys of OIDC issuers over HTTP."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import jwt

from emulator.identity.federation import IssuerUnreachable
from emulator.identity.keys import ALGORITHM

_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def keys_of(oidc: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    """Return the signing keys of a provider's issuer, by key ID.

    Args:
        oidc: The provider's `oidc`. Keys that were uploaded to it come first; otherwise the issuer
            is asked for its discovery document.

    Raises:
        IssuerUnreachable: The issuer gives no keys.
    """
    if oidc.get("jwksJson"):
        return _keys(json.loads(oidc["jwksJson"]))
    issuer = str(oidc["issuerUri"]).rstrip("/")
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
            discovery = await _json(http, f"{issuer}/.well-known/openid-configuration")
            if discovery["issuer"] != oidc["issuerUri"]:
                raise IssuerUnreachable(issuer)
            return _keys(await _json(http, discovery["jwks_uri"]))
    except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
        raise IssuerUnreachable(issuer) from error


async def _json(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(url, raise_for_status=True) as response:
        return await response.json(content_type=None)


def _keys(jwks: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    found = {}
    for entry in jwks["keys"]:
        if entry.get("kty") == "RSA" and "kid" in entry:
            found[str(entry["kid"])] = jwt.PyJWK(entry, algorithm=ALGORITHM)
    return found
