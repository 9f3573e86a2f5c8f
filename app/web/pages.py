"""The service's responses: the page, the version and the health checks."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from pathlib import Path

from flask import Blueprint, Response, render_template
from markupsafe import Markup

from web import cloud_run

blueprint = Blueprint("pages", __name__)
_TEMPLATES = Path(__file__).parent / "templates"


@blueprint.get("/")
def index() -> Response:
    """Return the page, which names its revision and draws the live traffic split."""
    html, policy = _page()
    headers = {"Content-Security-Policy": policy}
    return Response(html, content_type="text/html; charset=utf-8", headers=headers)


@blueprint.get("/version")
def version() -> Response:
    """Return who answers: `{"commit": …, "revision": …, "service": …, "region": …}`."""
    return Response(_version(), content_type="application/json")


# Two paths for one check. Google's front end answers `/healthz` with its own 404
# (https://cloud.google.com/run/docs/known-issues, "Reserved URL paths"), so only probes from inside
# reach it. Requests from outside use `/health`.
@blueprint.get("/healthz")
@blueprint.get("/health")
def health() -> Response:
    """Return 200. It checks no other service: a slow database must not restart this one."""
    return Response('{"status": "ok"}\n', content_type="application/json")


@functools.cache
def _version() -> bytes:
    """Return the body of `/version`, which cannot change while the process lives."""
    return json.dumps(cloud_run.identity()).encode() + b"\n"


@functools.cache
def _page() -> tuple[bytes, str]:
    """Return the page and its Content-Security-Policy, made once per process.

    Style and script are inline: during a rollout the next request may reach another revision, so
    only the parts of one response are certain to fit together. The policy names both by their
    hashes, and forbids every other inline script.
    """
    style, script = (
        (_TEMPLATES / name).read_text(encoding="utf-8") for name in ("live.css", "live.js")
    )
    html = render_template(
        "index.html",
        **cloud_run.identity(),
        style=Markup(style),  # noqa: S704 - the service's own file, not input
        script=Markup(script),  # noqa: S704 - the service's own file, not input
    )
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _source(text: str) -> str:
    """Return the policy's source expression for an inline text: `'sha256-…'`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
