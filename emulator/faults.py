"""What goes wrong at Google's, by name, for as long as it is wanted.

`POST /_local/faults {"name": …}` begins it, `DELETE /_local/faults/NAME` ends it, and so does
stopping the local Cloud Run. The words are Google's, as users quote them.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from emulator.errors import ApiError, invalid
from emulator.names import project_number
from emulator.routes import OPEN, Route

Document = dict[str, Any]

QUOTA = "quota-exceeded"
"""Each request to `service` (run.googleapis.com unless named) is over the quota."""
DOMAINS = "org-policy-domains"
"""constraints/iam.allowedPolicyMemberDomains: no policy may name allUsers."""
INVOKER = "org-policy-invoker"
"""constraints/run.managed.requireInvokerIam: no service may be open without a policy."""
BILLING = "no-billing"
"""The project has no billing account: no API can be enabled."""
TOKEN = "token-exchange"  # noqa: S105  (a fault's name)
"""The registry does not exchange the caller's credentials."""
CLOCK = "clock-skew"
"""Google's clock is `seconds` ahead of this machine's, going by the Date header."""
NAMES = (QUOTA, DOMAINS, INVOKER, BILLING, TOKEN, CLOCK)


class Faults:
    """The faults that are under way."""

    def __init__(self) -> None:
        self._active: dict[str, Document] = {}

    def get(self, name: str) -> Document | None:
        """The settings of a fault that is under way; None when it is not."""
        return self._active.get(name)

    def check_quota(self, api: str, project: str) -> None:
        """Raise RESOURCE_EXHAUSTED while the quota of an API is used up."""
        fault = self.get(QUOTA)
        if fault is None or fault.get("service", "run.googleapis.com") != api:
            return
        number = project_number(project)
        where = "https://console.cloud.google.com/iam-admin/quotas"
        raise ApiError(
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute "
            f"per region' of service '{api}' for consumer 'project_number:{number}'.",
            [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "RATE_LIMIT_EXCEEDED",
                    "domain": "googleapis.com",
                    "metadata": {
                        "consumer": f"projects/{number}",
                        "quota_limit": "WritePerMinutePerProjectRegion",
                        "quota_metric": f"{api}/write_regional",
                        "service": api,
                    },
                },
                {
                    "@type": "type.googleapis.com/google.rpc.Help",
                    "links": [{"description": "Request a higher quota limit.", "url": where}],
                },
            ],
        )

    def routes(self) -> list[Route]:
        """The paths by which faults begin and end."""
        return [
            Route("GET", "/_local/faults", self._list, OPEN),
            Route("POST", "/_local/faults", self._begin, OPEN),
            Route("DELETE", "/_local/faults/{name}", self._end, OPEN),
        ]

    @web.middleware
    async def skew(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware that sets Google's clock."""
        response = await handler(request)
        if fault := self.get(CLOCK):
            seconds = float(fault.get("seconds", 600))
            response.headers["Date"] = formatdate(time.time() + seconds, usegmt=True)
        return response

    async def _list(self, _request: web.Request) -> web.Response:
        return web.json_response({"faults": [*self._active.values()]})

    async def _begin(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body.get("name") if isinstance(body, dict) else None
        if name not in NAMES:
            raise invalid(f"Expected one of {', '.join(NAMES)}.", "name")
        self._active[name] = body
        return web.json_response(body)

    async def _end(self, request: web.Request) -> web.Response:
        if self._active.pop(request.match_info["name"], None) is None:
            raise ApiError("NOT_FOUND", "That fault is not under way.")
        return web.json_response({})
