"""The sample service. Its answers name their revision and commit."""

from __future__ import annotations

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from web import pages


def create_app() -> Flask:
    """Create the WSGI application. gunicorn calls this once (`web:create_app()`).

    It makes no network request, because Cloud Run waits for the port to open.
    """
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(pages.blueprint)
    app.register_error_handler(HTTPException, _as_json)
    app.after_request(_protect)
    return app


def _as_json(error: HTTPException) -> Response:
    """Answer an HTTP error (404, 405, an unhandled exception's 500) as `{"error": NAME}`."""
    response = Response(status=error.code, headers=error.get_headers())  # keeps Allow, Retry-After
    response.content_type = "application/json"
    response.data = f'{{"error": "{error.name}"}}\n'
    return response


def _protect(response: Response) -> Response:
    """Add the headers of every response. The page sets its own Content-Security-Policy."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    # Each response names its revision, so a cached one would be wrong.
    headers["Cache-Control"] = "no-store"
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response
