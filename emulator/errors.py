"""Errors as Google's JSON APIs write them: `{"error": {"code", "message", "status"}}`.

Source: https://cloud.google.com/apis/design/errors (the HTTP mapping of google.rpc.Status).
"""

from __future__ import annotations

from typing import Any

_HTTP_CODES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "FAILED_PRECONDITION": 400,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}


class ApiError(Exception):
    """A request that is refused: `status` is a google.rpc.Code name, such as NOT_FOUND."""

    def __init__(
        self, status: str, message: str, details: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details

    @property
    def code(self) -> int:
        """The HTTP status code that goes with `status`."""
        return _HTTP_CODES[self.status]

    def body(self) -> dict[str, Any]:
        """The response body, ready for JSON."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "status": self.status,
        }
        if self.details:
            error["details"] = self.details
        return {"error": error}


def invalid(message: str, field: str | None = None) -> ApiError:
    """A 400 INVALID_ARGUMENT, naming the `field` (a path such as `spec.traffic`) when given."""
    if field is None:
        return ApiError("INVALID_ARGUMENT", message)
    violation = {"field": field, "description": message}
    detail = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [violation],
    }
    return ApiError("INVALID_ARGUMENT", f"{field}: {message}", [detail])
