"""RSA keys that sign tokens, and the key sets that verify them."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from emulator import files

ALGORITHM = "RS256"


class SigningKey:
    """An issuer's key: made on first use, and stored in `file`, which only its owner can read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._key: rsa.RSAPrivateKey | None = None

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a JWT with these claims, signed with RS256 under this key's ID."""
        headers = {"kid": self.jwks()["keys"][0]["kid"]}
        return jwt.encode(claims, self._private(), algorithm=ALGORITHM, headers=headers)

    def verify(self, token: str, audience: str, issuer: str) -> dict[str, Any]:
        """Return the claims of a token that this key signed; raises jwt.InvalidTokenError."""
        claims: dict[str, Any] = jwt.decode(
            token,
            self._private().public_key(),
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer,
            options={"require": ["aud", "exp", "iat", "iss", "sub"]},
        )
        return claims

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set (RFC 7517)."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._private().public_key(), as_dict=True)
        numbers = {"e": public["e"], "kty": "RSA", "n": public["n"]}
        kid = _thumbprint(numbers)
        return {"keys": [{**numbers, "alg": ALGORITHM, "kid": kid, "use": "sig"}]}

    def _private(self) -> rsa.RSAPrivateKey:
        if self._key is None:
            self._key = self._read() or self._make()
        return self._key

    def _read(self) -> rsa.RSAPrivateKey | None:
        try:
            pem = self._file.read_bytes()
        except FileNotFoundError:
            return None
        key = serialization.load_pem_private_key(pem, password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    def _make(self) -> rsa.RSAPrivateKey:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        files.write(self._file, pem, mode=0o600)
        return key


def _thumbprint(numbers: dict[str, str]) -> str:
    """Return a key's ID: its JWK thumbprint (RFC 7638)."""
    canonical = json.dumps(numbers, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
