"""One metadata server per instance, on a loopback port of its own.

Source: https://cloud.google.com/run/docs/container-contract#metadata-server.
"""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web

from emulator.names import project_number

_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}


class Identity(NamedTuple):
    """Where an instance runs, and as whom (a service account's e-mail)."""

    project: str
    region: str
    service_account: str


class MetadataServer:
    """Answers an instance's questions on 127.0.0.1."""

    def __init__(self, identity: Identity) -> None:
        number = project_number(identity.project)
        self._values = {
            "project/project-id": identity.project,
            "project/numeric-project-id": number,
            "instance/region": f"projects/{number}/regions/{identity.region}",
            "instance/zone": f"projects/{number}/zones/{identity.region}-1",
            "instance/id": f"local-{id(self):x}",
            "instance/service-accounts/default/email": identity.service_account,
            "instance/service-accounts/": f"default/\n{identity.service_account}/\n",
        }
        self._runner: web.ServerRunner | None = None

    async def start(self) -> str:
        """Start answering; returns `127.0.0.1:PORT`, the value for GCE_METADATA_HOST."""
        server = web.Server(self._answer, access_log=None)
        self._runner = web.ServerRunner(server)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"{host}:{port}"

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
        value = self._values.get(request.path.removeprefix("/computeMetadata/v1/"))
        if value is None:
            return web.Response(status=404, text="Not found.\n", headers=_FLAVOR)
        return web.Response(text=value, headers=_FLAVOR)
