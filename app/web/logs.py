"""Log entries in the form that Cloud Logging reads from a container: one JSON object per line.

Fields: https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields
Use `logging` as usual. Entries written during a request carry its trace, so that Logs Explorer
shows them below Cloud Run's own entry. No entry holds a header, a query string or a body.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from types import TracebackType

from flask import has_request_context, request

from web import cloud_run

# "TRACE_ID/SPAN_ID;o=OPTIONS": 32 hexadecimal digits, a decimal number, 1 if the trace is sampled.
# https://cloud.google.com/trace/docs/trace-context#legacy-http-header
_TRACE_CONTEXT = re.compile(r"([0-9a-f]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?", re.IGNORECASE)
_SEVERITIES = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


def configure() -> None:
    """Write every log entry, warning and uncaught exception to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry for `record`. A stack trace follows the message, where Error Reporting
        finds it (https://cloud.google.com/error-reporting/docs/formatting-error-messages).
        """
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        entry: dict[str, object] = {
            "severity": record.levelname if record.levelname in _SEVERITIES else "DEFAULT",
            "message": message,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
        }
        if has_request_context():
            entry |= _trace(request.headers.get("X-Cloud-Trace-Context", ""))
            if record.exc_info:
                entry["httpRequest"] = {
                    "requestMethod": request.method,
                    "requestUrl": request.path,  # without the query, which may hold secrets
                }
        return json.dumps(entry, default=str)


def _trace(context: str) -> dict[str, object]:
    """Return the trace fields for an `X-Cloud-Trace-Context` header; none if it is malformed."""
    match = _TRACE_CONTEXT.fullmatch(context)
    project = cloud_run.project() if match else None
    if not match or not project:
        return {}
    trace, span, sampled = match.groups()
    fields: dict[str, object] = {
        "logging.googleapis.com/trace": f"projects/{project}/traces/{trace.lower()}",
        "logging.googleapis.com/trace_sampled": sampled == "1",
    }
    if span:
        # The header is decimal; a log entry needs 16 hexadecimal digits.
        fields["logging.googleapis.com/spanId"] = f"{int(span):016x}"
    return fields


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Log the exception that ends the process. Ctrl-C is not an error."""
    if not issubclass(kind, KeyboardInterrupt):
        logging.critical("The process ends: uncaught exception", exc_info=(kind, error, trace))
