"""Secret Manager's routes."""

from __future__ import annotations

from collections.abc import Callable

from emulator.permissions import Asks, On
from emulator.routes import Route
from emulator.secrets.models import Secrets
from emulator.secrets.responses import Responses

_SECRETS = "/v1/projects/{project}/secrets"
_SECRET = f"{_SECRETS}/{{name:[^/:]+}}"
_VERSIONS = f"{_SECRET}/versions"
_VERSION = f"{_VERSIONS}/{{version:[^/:]+}}"
# Names of resources, as refusals write them.
_PROJECT = "projects/{project}"
_NAMED = f"{_PROJECT}/secrets/{{name}}"


def routes(secrets: Secrets, forget: Callable[[str, str], None]) -> list[Route]:
    """Return Secret Manager's routes.

    `forget(project, name)` drops the policy of a deleted secret.
    """
    answer = Responses(secrets, forget)
    lists = Asks("secretmanager.secrets.list", On.PROJECT, _PROJECT)
    creates = Asks("secretmanager.secrets.create", On.PROJECT, _PROJECT)

    def on_secret(permission: str) -> Asks:
        return Asks(f"secretmanager.{permission}", On.SECRET, _NAMED)

    def on_version(verb: str) -> Asks:
        resource = f"{_NAMED}/versions/{{version}}"
        return Asks(f"secretmanager.versions.{verb}", On.SECRET, resource)

    return [
        Route("GET", _SECRETS, answer.list_secrets, lists),
        Route("POST", _SECRETS, answer.create, creates),
        Route("GET", _SECRET, answer.get, on_secret("secrets.get")),
        Route("PATCH", _SECRET, answer.patch, on_secret("secrets.update")),
        Route("DELETE", _SECRET, answer.delete, on_secret("secrets.delete")),
        Route("POST", f"{_SECRET}:addVersion", answer.add_version, on_secret("versions.add")),
        Route("GET", _VERSIONS, answer.list_versions, on_secret("versions.list")),
        Route("GET", _VERSION, answer.get_version, on_version("get")),
        Route("GET", f"{_VERSION}:access", answer.access, on_version("access")),
        Route("POST", f"{_VERSION}:enable", answer.change("ENABLED"), on_version("enable")),
        Route("POST", f"{_VERSION}:disable", answer.change("DISABLED"), on_version("disable")),
        Route("POST", f"{_VERSION}:destroy", answer.change("DESTROYED"), on_version("destroy")),
    ]
