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
    """A request that is refused.

    Attributes:
        status: The name of a google.rpc.Code, such as NOT_FOUND.
        message: What is wrong.
        details: Messages of google.rpc types, for programs.
    """

    def __init__(
        self, status: str, message: str, details: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details

    @property
    def code(self) -> int:
        """The HTTP status code of `status`."""
        return _HTTP_CODES[self.status]

    def body(self) -> dict[str, Any]:
        """Return the response's body."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "status": self.status,
        }
        if self.details:
            error["details"] = self.details
        return {"error": error}


def invalid(message: str, field: str | None = None) -> ApiError:
    """Return a 400 INVALID_ARGUMENT, of a `field` (a path such as `spec.traffic`) if given."""
    if field is None:
        return ApiError("INVALID_ARGUMENT", message)
    violation = {"field": field, "description": message}
    detail = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [violation],
    }
    return ApiError("INVALID_ARGUMENT", f"{field}: {message}", [detail])


def error_info(reason: str, domain: str, metadata: dict[str, str]) -> dict[str, Any]:
    """Return the detail that names the cause of an error (google.rpc.ErrorInfo)."""
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": domain,
        "metadata": metadata,
    }


def precondition_failure(kind: str, subject: str, description: str) -> dict[str, Any]:
    """Return the detail that names a broken constraint (google.rpc.PreconditionFailure)."""
    violation = {"type": kind, "subject": subject, "description": description}
    return {
        "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
        "violations": [violation],
    }


class NotAllowed(Exception):
    """A request to a service that its caller may not send.

    Attributes:
        bad_token: Whether its token is not a valid ID token for the service; otherwise the caller
            lacks the permission.
    """

    def __init__(self, *, bad_token: bool) -> None:
        super().__init__("bad token" if bad_token else "no permission")
        self.bad_token = bad_token
