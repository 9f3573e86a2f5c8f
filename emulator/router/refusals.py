"""The pages of requests that reach no container.

The page of a caller who may not invoke the service, and its WWW-Authenticate header, are
recollected from Google's front end; Google does not document them.
"""

from __future__ import annotations

import html

from aiohttp import web

from emulator.errors import NotAllowed

_SERVER = {"Server": "Google Frontend"}


def page(status: int, text: str) -> web.Response:
    """Return a page of plain text."""
    return web.Response(status=status, text=text, headers=_SERVER)


def not_allowed(refusal: NotAllowed, path: str) -> web.Response:
    """Return the page for a caller who may not invoke the service: 401 or 403."""
    if refusal.bad_token:
        status, title = 401, "Unauthorized"
        sentence = "Your client does not have permission to the requested URL"
        error = 'error_description="The access token could not be verified"'
        headers = {**_SERVER, "WWW-Authenticate": f'Bearer error="invalid_token" {error}'}
    else:
        status, title = 403, "Forbidden"
        sentence = "Your client does not have permission to get URL"
        headers = _SERVER
    text = (
        f"<html><head><title>{status} {title}</title></head>\n<body>"
        f"<h1>Error: {title}</h1>\n<h2>{sentence} <code>{html.escape(path)}</code> from this "
        "server.</h2>\n</body></html>\n"
    )
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)
