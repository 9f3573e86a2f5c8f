"""Errors as Cloud Storage's JSON API writes them, which differ from those of newer APIs.

Source: https://cloud.google.com/storage/docs/json_api/v1/status-codes.
"""

from __future__ import annotations

from typing import Any

_REASONS = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    412: "conditionNotMet",
    413: "uploadTooLarge",
    416: "requestedRangeNotSatisfiable",
    429: "rateLimitExceeded",
    503: "backendError",
}


def is_ours(path: str) -> bool:
    """Return whether a path belongs to Cloud Storage."""
    return path.startswith(("/storage/", "/upload/storage/", "/resumable/upload/storage/"))


def body(code: int, message: str) -> dict[str, Any]:
    """Return an error's body."""
    reason = _REASONS.get(code, "internalError")
    one = {"message": message, "domain": "global", "reason": reason}
    return {"error": {"code": code, "message": message, "errors": [one]}}
