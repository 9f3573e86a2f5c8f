"""The IAM policies of services: stores and returns them. `emulator.identity` enforces them.

Source: https://cloud.google.com/run/docs/reference/rest/v1/Policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.names import Key
from emulator.policy import asked_permissions, sent_policy
from emulator.run.models import Admin

Document = dict[str, Any]


class Policies:
    """Reads and writes the policy of a service."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._resources = admin.resources

    def get(self, key: Key) -> Document:
        """Return the policy of a service; raise ApiError NOT_FOUND."""
        self._admin.service(key)
        return self._resources.policy(key)

    def set(self, key: Key, body: Document) -> Document:
        """Replace the policy of a service and return the new one.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND, or ABORTED (the etag is not the current one).
        """
        wanted = sent_policy(body, self.get(key))
        stored: Document = {"version": wanted.get("version", 1)}
        if wanted["bindings"]:
            stored["bindings"] = wanted["bindings"]
        self._resources.put_policy(key, stored)
        return stored

    def test(self, body: Document, may: Callable[[str], bool]) -> Document:
        """Return those of the body's permissions that the caller has, by `may(permission)`.

        The service need not exist: gcloud asks before it creates one.
        """
        held = [*filter(may, asked_permissions(body))]
        return {"permissions": held} if held else {}
