"""Access tokens and ID tokens: made here, and recognised here.

An access token is opaque, as Google's are. The state holds its hash, whose it is and until when;
the token itself is given away once and kept nowhere.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from pathlib import Path

import jwt

from emulator.identity.keys import SigningKey
from emulator.identity.principals import Principal, service_account, unique_id
from emulator.store import Store

HOUR = 3600
GOOGLE = "https://accounts.google.com"


class BadToken(Exception):
    """A token that is nobody's: malformed, expired, for somebody else, or not signed here."""


class AccessTokens:
    """Every access token that is still good, by its hash."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[Principal, float]] = {}
        for entry in store.documents("access-tokens"):
            principal = Principal(entry["name"], tuple(entry["sets"]))
            self._known[entry["hash"]] = (principal, entry["expires"])
        self._drop_expired()

    def make(self, principal: Principal, seconds: float) -> str:
        """A new token of `principal`, good for `seconds`."""
        self._drop_expired()
        token = f"ya29.local.{secrets.token_urlsafe(96)}"
        hashed, expires = _hash(token), time.time() + seconds
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
        """Whose token it is; raises BadToken."""
        principal, expires = self._known.get(_hash(token), (None, 0.0))
        if principal is None or expires <= time.time():
            raise BadToken
        return principal

    def _drop_expired(self) -> None:
        now = time.time()
        for hashed in [h for h, (_, expires) in self._known.items() if expires <= now]:
            del self._known[hashed]
            self._store.delete(_path(hashed))


class IdTokens:
    """Google's ID tokens of service accounts.

    Source: https://cloud.google.com/docs/authentication/token-types#id (claims and lifetime).
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.key = SigningKey(folder / "google.pem")
        self._store = store

    def make(self, email: str, audience: str, *, include_email: bool) -> str:
        """A new ID token of a service account, good for an hour."""
        number = unique_id(email)
        if self._store.read(f"accounts/{number}.json") is None:
            # A token may leave the e-mail out: the number has to lead back to it.
            self._store.write(f"accounts/{number}.json", {"email": email})
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
        """Whose token for `audience` it is; raises BadToken."""
        try:
            claims = self.key.verify(token, audience, GOOGLE)
        except jwt.InvalidTokenError as error:
            raise BadToken from error
        account = self._store.read(f"accounts/{claims['sub']}.json")
        if account is None:
            raise BadToken
        return service_account(account["email"])


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _path(hashed: str) -> str:
    return f"access-tokens/{hashed}.json"
