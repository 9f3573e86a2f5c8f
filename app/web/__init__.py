"""The sample service: it says which revision and which commit answered."""

from __future__ import annotations

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from web import pages


def create_app() -> Flask:
    """Make the WSGI application; gunicorn calls this once (`web:create_app()`).

    Nothing here asks the network: Cloud Run is waiting for the port to open.
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
    """Add the headers that every answer carries; the page brings its own policy."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    # Each answer tells which revision gave it: one from a cache would tell a lie.
    headers["Cache-Control"] = "no-store"
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response
