"""A request that an API answers and, beside it, the permission that it asks for.

Each room's `urls` lists its routes. `emulator.identity.guard` checks what they ask for before their
handlers run. Sources: the "IAM permissions" of each method in Google's references, such as
https://cloud.google.com/run/docs/reference/iam/permissions and
https://cloud.google.com/artifact-registry/docs/access-control#permissions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class On(Enum):
    """What a permission is needed on."""

    PROJECT = auto()
    SERVICE = auto()
    """A Cloud Run service; its project while the service does not exist."""
    REVISION = auto()
    """The service that a revision belongs to."""
    REPOSITORY = auto()
    IMAGE = auto()
    """The repository of an image, for a request of the registry's own protocol."""
    SECRET = auto()
    ACCOUNT = auto()
    LOGS = auto()
    """Each project that the body of a request for log entries names."""
    CALLER = auto()
    """Nothing: every caller with a valid token may send the request."""
    NOTHING = auto()
    """Nothing: the request needs no token."""


class Checks(Enum):
    """What the guard checks in a request's body, once the caller has the permission."""

    POLICY = auto()
    """A policy that is to be set: its members exist, and the resource takes its roles."""
    PERMISSIONS = auto()
    """Permissions that are asked about: the resource knows them."""
    DEPLOYMENT = auto()
    """A service: the caller may use its account and its image."""


# How the permissions of a kind of resource begin.
PREFIXES = {
    On.PROJECT: "resourcemanager.",
    On.SERVICE: "run.",
    On.REPOSITORY: "artifactregistry.",
    On.SECRET: "secretmanager.",
    On.ACCOUNT: "iam.serviceAccounts.",
}
# The API that a permission belongs to, by how it begins; the longer beginning first.
_APIS = {
    "artifactregistry.": "artifactregistry.googleapis.com",
    "cloudbuild.": "cloudbuild.googleapis.com",
    "iam.serviceAccounts.getAccessToken": "iamcredentials.googleapis.com",
    "iam.serviceAccounts.getOpenIdToken": "iamcredentials.googleapis.com",
    "iam.": "iam.googleapis.com",
    "logging.": "logging.googleapis.com",
    "monitoring.": "monitoring.googleapis.com",
    "resourcemanager.": "cloudresourcemanager.googleapis.com",
    "run.": "run.googleapis.com",
    "secretmanager.": "secretmanager.googleapis.com",
    "serviceusage.": "serviceusage.googleapis.com",
}


class Asks(NamedTuple):
    """What a route asks of its caller.

    Attributes:
        permission: The permission; "" where every caller may send the request.
        on: What the permission is needed on.
        resource: The resource's name in a refusal. `{NAME}` stands for a part of the path.
        checks: What is checked in the body as well.
    """

    permission: str
    on: On
    resource: str = ""
    checks: Checks | None = None

    @property
    def api(self) -> str:
        """The API that is called, which has to be enabled; "" for one that always is."""
        named = self.permission or PREFIXES.get(self.on, "")
        return next((api for start, api in _APIS.items() if named.startswith(start)), "")


OPEN = Asks("", On.NOTHING)
CALLER = Asks("", On.CALLER)


@dataclass(frozen=True)
class Route:
    """A request that is answered: method (`*` for the rest), path, and what its caller needs."""

    method: str
    path: str
    handler: Handler
    asks: Asks


@dataclass(frozen=True)
class Caller:
    """The sender of a request: `may(permission)` tells what they may do with its resource."""

    may: Callable[[str], bool]


_ASKED = web.AppKey("asked", dict[web.AbstractRoute, Asks])
_CALLER = web.RequestKey("caller", Caller)


def add(application: web.Application, routes: Iterable[Route]) -> None:
    """Serve `routes`, which are all of an application's. A route of GET answers HEAD, too."""
    asked: dict[web.AbstractRoute, Asks] = {}
    for route in routes:
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            resource = application.router.add_resource(route.path)
            asked[resource.add_route(method, route.handler)] = route.asks
    application[_ASKED] = asked


def asked(request: web.Request) -> Asks | None:
    """Return what the route of a request asks for; None where nothing is served."""
    return request.app[_ASKED].get(request.match_info.route)


def every(application: web.Application) -> dict[web.AbstractRoute, Asks]:
    """Return what each route of an application asks for."""
    return application[_ASKED]


def set_caller(request: web.Request, caller: Caller) -> None:
    """Note the sender of a request, for `may`."""
    request[_CALLER] = caller


def may(request: web.Request) -> Callable[[str], bool]:
    """Return the test whether the sender of a request has a permission on its resource.

    Everyone has every permission where no guard looked at the request.
    """
    caller = request.get(_CALLER)
    return caller.may if caller else lambda _permission: True


def policy_routes(
    base: str, asks: Asks, handlers: tuple[Handler, Handler, Handler], *, read: str = "POST"
) -> list[Route]:
    """Return the routes of a resource's IAM policy.

    Args:
        base: The resource's path.
        asks: What the policy is of; its permission is how the permissions begin, such as
            `run.services`.
        handlers: What answers getIamPolicy, setIamPolicy and testIamPermissions.
        read: The method of getIamPolicy, which differs from API to API.
    """
    get, change, test = handlers
    reads = asks._replace(permission=f"{asks.permission}.getIamPolicy")
    changes = asks._replace(permission=f"{asks.permission}.setIamPolicy", checks=Checks.POLICY)
    # Every caller may ask what they may do.
    tests = asks._replace(permission="", checks=Checks.PERMISSIONS)
    return [
        Route(read, f"{base}:getIamPolicy", get, reads),
        Route("POST", f"{base}:setIamPolicy", change, changes),
        Route("POST", f"{base}:testIamPermissions", test, tests),
    ]
