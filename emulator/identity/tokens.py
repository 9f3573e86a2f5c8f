"""Makes and checks access tokens and ID tokens.

An access token is opaque, as Google's are. The state holds its hash, its principal and when it
expires. The token itself is returned once and stored nowhere.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import jwt

from emulator.hashes import hex_of
from emulator.identity.keys import SigningKey
from emulator.identity.principals import Principal, service_account, unique_id
from emulator.store import Store

HOUR = 3600
GOOGLE = "https://accounts.google.com"


class BadToken(Exception):
    """A token that is not valid: malformed, expired, for another audience, or not made here."""


class AccessTokens:
    """Every access token that is not expired, by its hash."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[Principal, float]] = {}
        for entry in store.documents("access-tokens"):
            principal = Principal(entry["name"], tuple(entry["sets"]))
            self._known[entry["hash"]] = (principal, entry["expires"])
        self._drop_expired()

    def make(self, principal: Principal, seconds: float) -> str:
        """Return a new token of `principal`, valid for `seconds`."""
        self._drop_expired()
        token = f"ya29.local.{secrets.token_urlsafe(96)}"
        hashed, expires = hex_of(token), time.time() + seconds
        self._store.write(
            _path(hashed),
            {
                "hash": hashed,
                "name": principal.name,
                "sets": principal.sets,
                "expires": expires,
            },
        )
        self._known[hashed] = (principal, expires)
        return token

    def principal(self, token: str) -> Principal:
        """Return the principal of a token; raises BadToken."""
        principal, expires = self._known.get(hex_of(token), (None, 0.0))
        if principal is None or expires <= time.time():
            raise BadToken
        return principal

    def _drop_expired(self) -> None:
        now = time.time()
        for hashed in [h for h, (_, expires) in self._known.items() if expires <= now]:
            del self._known[hashed]
            self._store.delete(_path(hashed))


class IdTokens:
    """Google's ID tokens of service accounts, and of users of the local Cloud Run.

    Source: https://cloud.google.com/docs/authentication/token-types#id (claims and lifetime).
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.key = SigningKey(folder / "google.pem")
        self._store = store

    def make(self, email: str, audience: str, *, include_email: bool, user: bool = False) -> str:
        """Return a new ID token of a service account or a user, valid for an hour."""
        number = unique_id(f"user:{email}" if user else email)
        if self._store.read(f"accounts/{number}.json") is None:
            # A token may leave the e-mail out: then the number has to lead to it.
            self._store.write(f"accounts/{number}.json", {"email": email, "user": user})
        now = int(time.time())
        claims = {
            "aud": audience,
            "azp": number,
            "exp": now + HOUR,
            "iat": now,
            "iss": GOOGLE,
            "sub": number,
        }
        if include_email:
            claims |= {"email": email, "email_verified": True}
        return self.key.sign(claims)

    def principal(self, token: str, audience: str) -> Principal:
        """Return the principal of a token for `audience`; raises BadToken."""
        try:
            claims = self.key.verify(token, audience, GOOGLE)
        except jwt.InvalidTokenError as error:
            raise BadToken from error
        account = self._store.read(f"accounts/{claims['sub']}.json")
        if account is None:
            raise BadToken
        if account.get("user"):
            return Principal(f"user:{account['email']}")
        return service_account(account["email"])


def _path(hashed: str) -> str:
    return f"access-tokens/{hashed}.json"
