"""The services of Cloud Run, as far as IAM needs them. The room `run` implements it."""

from __future__ import annotations

from typing import Any, Protocol

from emulator.names import Key

Document = dict[str, Any]


class Services(Protocol):
    """The services and revisions of every project and region."""

    def service(self, key: Key) -> Document | None:
        """Return a service; None if it does not exist."""

    def service_of(self, revision: Key) -> Key | None:
        """Return the service of a revision; None if the revision does not exist."""

    def policy(self, service: Key) -> Document:
        """Return the IAM policy of a service; an empty one if none was set."""

    def project_id(self, name: str) -> str:
        """Return the ID of a project that is named by its number, and any other name unchanged."""

    def region_of(self, host: str, project: str) -> str:
        """Return the region of a request that was sent to `host`, and whose path names none."""
