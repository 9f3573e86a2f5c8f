"""Binary Authorization on the wire: the policy of a project."""

from __future__ import annotations

from aiohttp import web

from emulator.admission.models import AdmissionPolicies
from emulator.wire import json_object


class Responses:
    """The handlers of policies."""

    def __init__(self, policies: AdmissionPolicies) -> None:
        self._policies = policies

    async def get(self, request: web.Request) -> web.Response:
        """`projects.getPolicy`."""
        return web.json_response(self._policies.get(request.match_info["project"]))

    async def update(self, request: web.Request) -> web.Response:
        """`projects.updatePolicy`."""
        project, body = request.match_info["project"], await json_object(request)
        return web.json_response(self._policies.update(project, body))
