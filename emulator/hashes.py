"""Hashes of texts and contents."""

from __future__ import annotations

import hashlib


def hex_of(text: str) -> str:
    """Return the SHA-256 of a text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(contents: bytes) -> str:
    """Return the digest of contents: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(contents).hexdigest()}"


def number_of(text: str, size: int = 8) -> int:
    """Return a number of `size` bytes that looks random and is always the same for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big")
