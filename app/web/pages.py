"""What the service answers: the page, the version and the health checks."""

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
    """The page that names the revision that answered and draws the live split between revisions."""
    html, policy = _page()
    headers = {"Content-Security-Policy": policy}
    return Response(html, content_type="text/html; charset=utf-8", headers=headers)


@blueprint.get("/version")
def version() -> Response:
    """Who answered: `{"commit": …, "revision": …, "service": …, "region": …}`."""
    return Response(_version(), content_type="application/json")


# Two paths for one check. Google's front end keeps `/healthz` to itself and answers it with its own
# 404 (https://cloud.google.com/run/docs/known-issues, "Reserved URL paths"): only probes from
# inside reach it. Whoever looks from outside asks `/health`.
@blueprint.get("/healthz")
@blueprint.get("/health")
def health() -> Response:
    """Whether the process can answer. It asks nobody else: a slow database must not restart us."""
    return Response('{"status": "ok"}\n', content_type="application/json")


@functools.cache
def _version() -> bytes:
    """The body of `/version`: it cannot change while the process lives."""
    return json.dumps(cloud_run.identity()).encode() + b"\n"


@functools.cache
def _page() -> tuple[bytes, str]:
    """The page and its Content-Security-Policy, made once for each process.

    Style and script are part of the page, not files of their own: during a rollout the next request
    may go to another revision, so only what comes in one response is certain to fit together. The
    policy names both by their hashes, and so still forbids every other inline script.
    """
    style, script = (
        (_TEMPLATES / name).read_text(encoding="utf-8") for name in ("live.css", "live.js")
    )
    html = render_template(
        "index.html",
        **cloud_run.identity(),
        style=Markup(style),  # noqa: S704 - a file of ours, not input
        script=Markup(script),  # noqa: S704 - a file of ours, not input
    )
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _source(text: str) -> str:
    """The policy's name for an inline text: `'sha256-…'`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
