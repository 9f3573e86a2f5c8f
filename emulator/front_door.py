"""Refuses what a hostile web page can send to a port of this machine, before anything else runs.

A page in the user's browser can send requests to loopback. The browser says where they come from
(`Origin`, `Sec-Fetch-Site`), and does not let a page write JSON to another origin without asking
first. A page whose own name resolves to 127.0.0.1 (DNS rebinding) has the right origin but the
wrong `Host`. Clients that are not browsers send neither `Origin` nor `Sec-Fetch-Site`.

Sources: https://fetch.spec.whatwg.org/#origin-header, https://www.w3.org/TR/fetch-metadata/,
https://www.rfc-editor.org/rfc/rfc9110#status.421.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web

from emulator import files, routes
from emulator.permissions import On
from emulator.routes import Handler

SECRET_FILE = "local-secret"  # noqa: S105  (a file's name)
SECRET_HEADER = "Shipway-Secret"  # noqa: S105  (a header's name)

_NAME = r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?"
_HOST = re.compile(rf"(?P<name>{_NAME}|\[?::1\]?)(:\d{{1,5}})?")
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
# The registry has media types of its own, and an object may have any. What needs no token (the
# token services) takes forms.
_NOT_JSON = (On.IMAGE, On.OBJECT, On.NOTHING)
# The pages have no scripts, and nothing that the registry stores becomes a page with some.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refused(Exception):
    """A request that comes from a hostile page, or that looks so; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def host_name(text: str) -> str:
    """Return a host's name in lower case; raises ValueError for one with a port or a scheme."""
    name = text.lower()
    if not re.fullmatch(_NAME, name):
        raise ValueError(text)
    return name


class Hosts:
    """The names that this machine answers to: loopback's own, and those that the user allows."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(allowed)

    def check(self, request: web.BaseRequest) -> None:
        """Raise Refused (421) unless a request is for exactly one host, which is known."""
        named = request.headers.getall("Host", [])
        if len(named) != 1:
            raise Refused(421, f"Expected one Host header, not {len(named)}.")
        # They differ where the request's target is a whole URL, as clients of a proxy send it.
        for host in {named[0], request.host}:
            if not self._knows(host):
                raise Refused(
                    421,
                    f"'{host[:100]}' is not a name of this machine. "
                    "To allow a name: ./ship up --allow-host NAME",
                )

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        if not found:
            return False
        name = found["name"]
        if name in self._allowed or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    def only(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """Return a server's handler that refuses requests for other hosts in plain text."""

        async def checked(request: web.BaseRequest) -> web.StreamResponse:
            try:
                self.check(request)
            except Refused as refusal:
                return web.Response(status=refusal.status, text=f"{refusal.message}\n")
            return await answer(request)

        return checked


class OneHost(Hosts):
    """The name of one host of Google's, for connections that were made to it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def _knows(self, host: str) -> bool:
        return host.lower() in (self._name, f"{self._name}:443")


def new_secret(folder: Path) -> str:
    """Make the secret of this start; write it to SECRET_FILE, which only its owner can read."""
    secret = secrets.token_urlsafe(32)
    files.write(folder / SECRET_FILE, secret.encode(), mode=0o600)
    return secret


class FrontDoor:
    """The middleware that checks each request first.

    Args:
        hosts: The names that requests may be for.
        secret: The secret of this start.
    """

    def __init__(self, hosts: Hosts, secret: str) -> None:
        self._hosts = hosts
        self._secret = secret

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer as `handler` does, or refuse in the form of Google's errors."""
        try:
            self._hosts.check(request)
            _check_origin(request)
            _check_type(request)
            self._check_secret(request)
        except Refused as refusal:
            status = "PERMISSION_DENIED" if refusal.status == 403 else "INVALID_ARGUMENT"
            error = {"code": refusal.status, "message": refusal.message, "status": status}
            return web.json_response({"error": error}, status=refusal.status)
        return await handler(request)

    def _check_secret(self, request: web.Request) -> None:
        asks = routes.asked(request)
        if asks is None or asks.on is not On.THIS_MACHINE:
            return
        sent = request.headers.get(SECRET_HEADER, "")
        if not hmac.compare_digest(sent.encode(), self._secret.encode()):
            raise Refused(
                403,
                f"{request.path} needs the header {SECRET_HEADER}. "
                f"Its value is in the state folder, in the file {SECRET_FILE}.",
            )


async def protect(_request: web.Request, response: web.StreamResponse) -> None:
    """Tell browsers to run and frame nothing of an answer (a signal handler)."""
    response.headers.update(_HEADERS)


def _check_origin(request: web.Request) -> None:
    """Raise Refused (403) for a request that a page of another origin causes."""
    own = f"http://{request.headers['Host'].lower()}"
    if any(origin.lower() != own for origin in request.headers.getall("Origin", [])):
        raise Refused(403, "Web pages of other origins cannot use the local Cloud Run.")
    sites = request.headers.getall("Sec-Fetch-Site", [])
    if any(site not in ("none", "same-origin") for site in sites):
        raise Refused(
            403,
            "Web pages of other origins cannot use the local Cloud Run. "
            "To look at a page of it, type its address.",
        )


def _check_type(request: web.Request) -> None:
    """Raise Refused (415) for a write to a JSON API with another type of body.

    A page can send other types to another origin without a preflight request.
    """
    if request.method not in _WRITES:
        return
    asks = routes.asked(request)
    if asks is not None and asks.on in _NOT_JSON:
        return
    typed = "Content-Type" in request.headers
    if (typed or request.body_exists) and request.content_type != "application/json":
        kind = request.content_type if typed else "missing"
        raise Refused(415, f"The Content-Type must be application/json; it is {kind}.")
