"""Who may call a service: the check that Cloud Run makes before a request reaches a container.

Sources: https://cloud.google.com/run/docs/securing/managing-access and
https://cloud.google.com/run/docs/authenticating/service-to-service (headers, audience). The pages
and the WWW-Authenticate header are recollected from Google's front end, not documented.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

from emulator.identity.access import ANYBODY, Access, Document
from emulator.identity.tokens import BadToken, IdTokens
from emulator.names import Key
from emulator.run.resources import Resources

_DISABLED = "run.googleapis.com/invoker-iam-disabled"
_PERMISSION = "run.routes.invoke"
# When both are there, only the first is looked at.
_HEADERS = ("X-Serverless-Authorization", "Authorization")
_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"


class NotAllowed(Exception):
    """A request that is not passed on: `status` is 401 for a bad token, 403 otherwise."""

    def __init__(self, status: int, path: str) -> None:
        super().__init__(f"{status} {path}")
        self.status = status
        self.path = path

    def headers(self) -> dict[str, str]:
        """The headers of the refusal."""
        if self.status != 401:
            return {}
        said = 'error_description="The access token could not be verified"'
        return {"WWW-Authenticate": f'Bearer error="invalid_token" {said}'}

    def page(self) -> str:
        """The page that goes with it."""
        if self.status == 401:
            title = "Unauthorized"
            text = "Your client does not have permission to the requested URL"
        else:
            title = "Forbidden"
            text = "Your client does not have permission to get URL"
        path = html.escape(self.path)
        return (
            f"<html><head><title>{self.status} {title}</title></head>\n<body>"
            f"<h1>Error: {title}</h1>\n<h2>{text} <code>{path}</code> from this server.</h2>\n"
            "</body></html>\n"
        )


class Invoker:
    """Checks requests to services, when IAM is enforced."""

    def __init__(self, access: Access, ids: IdTokens, resources: Resources) -> None:
        self._access = access
        self._ids = ids
        self._resources = resources

    def check(
        self, service: Key, url: str, path: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Let a request pass, or raise NotAllowed.

        `url` is the service's own URL: the audience, also at a tag's URL. Returns the headers to
        put in the place of the request's: a token that was checked goes on without its signature.
        """
        document = self._resources.services.get(service)
        if not self._access.enforced or document is None:
            return {}
        if is_open(document):
            return {}
        chain = self._access.of_service(service)
        open_to_all = self._access.may(ANYBODY, _PERMISSION, chain)
        name = next((name for name in _HEADERS if name in headers), None)
        if name is None:
            if open_to_all:
                return {}
            raise NotAllowed(403, path)
        scheme, _, token = headers[name].partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise BadToken
            principal = self._ids.principal(token.strip(), url)
        except BadToken:
            if open_to_all:
                # Not for Cloud Run, then: a service that is open may have tokens of its own.
                return {}
            raise NotAllowed(401, path) from None
        if not self._access.may(principal, _PERMISSION, chain):
            raise NotAllowed(403, path)
        return {name: f"{scheme} {token.strip().rpartition('.')[0]}.{_REMOVED}"}


def is_open(service: Document) -> bool:
    """Whether a service, as stored or as sent, has the check turned off."""
    metadata = service.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return isinstance(annotations, dict) and annotations.get(_DISABLED) == "true"
