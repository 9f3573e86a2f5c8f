"""CRC-32C (Castagnoli): the checksum that Secret Manager's clients send and verify.

Source: RFC 3720, appendix B.4; https://cloud.google.com/secret-manager/docs/data-integrity.
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = [_entry(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    """Return the checksum of `data`, 0 to 2**32 - 1."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
