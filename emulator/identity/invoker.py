"""The check that Cloud Run makes before a request reaches a container: may the caller invoke it?

Sources: https://cloud.google.com/run/docs/securing/managing-access and
https://cloud.google.com/run/docs/authenticating/service-to-service (headers, audience).
"""

from __future__ import annotations

from collections.abc import Mapping

from emulator.errors import NotAllowed
from emulator.identity.access import ALL_USERS, Access, Document
from emulator.identity.services import Services
from emulator.identity.tokens import BadToken, IdTokens
from emulator.names import Key

_DISABLED = "run.googleapis.com/invoker-iam-disabled"
_PERMISSION = "run.routes.invoke"
# With both headers, only the first is read.
_HEADERS = ("X-Serverless-Authorization", "Authorization")
_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"


class Invoker:
    """Checks requests to services, when IAM is enforced."""

    def __init__(self, access: Access, ids: IdTokens, services: Services) -> None:
        self._access = access
        self._ids = ids
        self._services = services

    def check(self, service: Key, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Check that the sender of a request may invoke a service.

        Args:
            service: The service.
            url: The service's own URL, which is the audience at the URLs of its tags, too.
            headers: The request's headers.

        Returns:
            Headers that replace the request's: a token that was checked loses its signature.

        Raises:
            NotAllowed: The caller may not.
        """
        document = self._services.service(service)
        if not self._access.enforced or document is None or is_open(document):
            return {}
        chain = self._access.of_service(service)
        open_to_all = self._access.may(ALL_USERS, _PERMISSION, chain)
        name = next((name for name in _HEADERS if name in headers), None)
        if name is None:
            if open_to_all:
                return {}
            raise NotAllowed(bad_token=False)
        scheme, _, token = headers[name].partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise BadToken
            principal = self._ids.principal(token.strip(), url)
        except BadToken:
            if open_to_all:
                # The token is not for Cloud Run: an open service may have tokens of its own.
                return {}
            raise NotAllowed(bad_token=True) from None
        if not self._access.may(principal, _PERMISSION, chain):
            raise NotAllowed(bad_token=False)
        return {name: f"{scheme} {token.strip().rpartition('.')[0]}.{_REMOVED}"}


def is_open(service: Document) -> bool:
    """Return whether a service, as stored or as sent, has the check turned off."""
    metadata = service.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return isinstance(annotations, dict) and annotations.get(_DISABLED) == "true"
