"""The routes of the APIs, each with the permission that it requires.

Each room's `urls` lists its routes. `emulator.identity.guard` checks the permissions before the
handlers run.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiohttp import web

from emulator.names import check_path
from emulator.permissions import Asks, Checks

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """A route: method (`*` for the rest), path, handler, and the permission that it requires."""

    method: str
    path: str
    handler: Handler
    asks: Asks


@dataclass(frozen=True)
class Caller:
    """The sender of a request. `may(permission)` is whether they have it on its resource."""

    may: Callable[[str], bool]


_ASKED = web.AppKey("asked", dict[web.AbstractRoute, Asks])
_CALLER = web.RequestKey("caller", Caller)


def add(application: web.Application, routes: Iterable[Route]) -> None:
    """Serve `routes`, which are all of an application's. A route of GET answers HEAD, too."""
    asked: dict[web.AbstractRoute, Asks] = {}
    for route in routes:
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            resource = application.router.add_resource(route.path)
            asked[resource.add_route(method, _checked(route.handler))] = route.asks
    application[_ASKED] = asked


def _checked(handler: Handler) -> Handler:
    """Return `handler`, which refuses a project or location that no request can be about."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        check_path(request.match_info)
        return await handler(request)

    return answer


def asked(request: web.Request) -> Asks | None:
    """Return the requirements of a request's route; None for a path that is not served."""
    return request.app[_ASKED].get(request.match_info.route)


def every(application: web.Application) -> dict[web.AbstractRoute, Asks]:
    """Return the requirements of each route of an application."""
    return application[_ASKED]


def set_caller(request: web.Request, caller: Caller) -> None:
    """Note the sender of a request, for `may`."""
    request[_CALLER] = caller


def may(request: web.Request) -> Callable[[str], bool]:
    """Return a function: whether the sender of a request has a permission on its resource.

    Without a guard, they have every permission.
    """
    caller = request.get(_CALLER)
    return caller.may if caller else lambda _permission: True


def policy_routes(
    base: str, asks: Asks, handlers: tuple[Handler, Handler, Handler], *, read: str = "POST"
) -> list[Route]:
    """Return the routes of a resource's IAM policy.

    Args:
        base: The resource's path.
        asks: The resource; with the prefix of its permissions, such as `run.services`.
        handlers: The handlers of getIamPolicy, setIamPolicy and testIamPermissions.
        read: The method of getIamPolicy, which differs from API to API.
    """
    get, change, test = handlers
    reads = asks._replace(permission=f"{asks.permission}.getIamPolicy")
    changes = asks._replace(permission=f"{asks.permission}.setIamPolicy", checks=Checks.POLICY)
    # Every caller may test their permissions.
    tests = asks._replace(permission="", checks=Checks.PERMISSIONS)
    return [
        Route(read, f"{base}:getIamPolicy", get, reads),
        Route("POST", f"{base}:setIamPolicy", change, changes),
        Route("POST", f"{base}:testIamPermissions", test, tests),
    ]
