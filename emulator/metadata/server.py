"""A metadata server for each instance, on a loopback port of its own.

Source: https://cloud.google.com/run/docs/container-contract#metadata-server.
"""

from __future__ import annotations

import contextlib
import random
from typing import NamedTuple, Protocol

from aiohttp import web

from emulator.front_door import Hosts
from emulator.names import project_number

_ACCOUNTS = "instance/service-accounts/"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 3600
_NAMES = ("metadata.google.internal", "metadata")
_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}


class Identity(NamedTuple):
    """The place of an instance, and the e-mail of its service account."""

    project: str
    region: str
    service_account: str


class Tokens(Protocol):
    """Makes tokens of service accounts."""

    def access_token(self, email: str, seconds: float) -> str:
        """Return an access token of an account, valid for `seconds`."""

    def id_token(self, email: str, audience: str) -> str:
        """Return an ID token of an account for `audience`."""


class MetadataServer:
    """Answers the requests of an instance on loopback addresses.

    Attributes:
        port: The port of 127.0.0.1.
        host: `127.0.0.1:PORT`, the value of GCE_METADATA_HOST.
        named: The address at whose port 80 it answers, too; "" if there is none.
    """

    port: int
    host: str
    named: str = ""

    def __init__(self, identity: Identity, tokens: Tokens) -> None:
        self._email = identity.service_account
        self._tokens = tokens
        number = project_number(identity.project)
        self._values = {
            "project/project-id": identity.project,
            "project/numeric-project-id": number,
            "instance/region": f"projects/{number}/regions/{identity.region}",
            "instance/zone": f"projects/{number}/zones/{identity.region}-1",
            "instance/id": f"local-{id(self):x}",
            _ACCOUNTS: f"default/\n{identity.service_account}/\n",
        }
        self._runner: web.ServerRunner | None = None

    async def start(self, *, named: bool = False) -> str:
        """Start answering, and set the attributes; returns `host`.

        Args:
            named: Whether to answer at port 80 of a loopback address as well, if this user may.
        """
        server = web.Server(Hosts(_NAMES).only(self._answer), access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        self.host = f"127.0.0.1:{self.port}"
        if named:
            address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.1"  # noqa: S311  (no secret)
            with contextlib.suppress(OSError):
                await web.TCPSite(self._runner, address, 80).start()
                self.named = address
        return self.host

    async def close(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/":
            return web.Response(text="computeMetadata/\n", headers=_FLAVOR)
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(
                status=403, text="Missing Metadata-Flavor:Google header.\n", headers=_FLAVOR
            )
        path = request.path.removeprefix("/computeMetadata/v1/")
        value = self._values.get(path)
        if value is None and path.startswith(_ACCOUNTS):
            account, _, what = path.removeprefix(_ACCOUNTS).partition("/")
            if account in ("default", self._email):
                return self._of_account(what, request)
        if value is None:
            return web.Response(status=404, text="Not found.\n", headers=_FLAVOR)
        return web.Response(text=value, headers=_FLAVOR)

    def _of_account(self, what: str, request: web.BaseRequest) -> web.Response:
        """Answer a request about the instance's account.

        Source: https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys.
        """
        if what == "" and request.query.get("recursive", "").lower() == "true":
            found = {"aliases": ["default"], "email": self._email, "scopes": [_SCOPE]}
            return web.json_response(found, headers=_FLAVOR)
        if what == "email":
            return web.Response(text=self._email, headers=_FLAVOR)
        if what == "scopes":
            return web.Response(text=f"{_SCOPE}\n", headers=_FLAVOR)
        if what == "token":
            token = self._tokens.access_token(self._email, _SECONDS)
            body = {"access_token": token, "expires_in": _SECONDS, "token_type": "Bearer"}
            return web.json_response(body, headers=_FLAVOR)
        audience = request.query.get("audience")
        if what == "identity" and audience:
            return web.Response(text=self._tokens.id_token(self._email, audience), headers=_FLAVOR)
        status = 400 if what == "identity" else 404
        text = "non-empty audience parameter required\n" if status == 400 else "Not found.\n"
        return web.Response(status=status, text=text, headers=_FLAVOR)
