"""Services and revisions for other rooms, as `emulator.identity.services` defines them."""

from __future__ import annotations

import re
from typing import Any

from emulator.names import Key
from emulator.run.resources import Resources, service_of

Document = dict[str, Any]

_DEFAULT_REGION = "us-central1"
_HOST = re.compile(r"([a-z]+-[a-z]+\d+)-")


class Directory:
    """Finds services, revisions, and the region that a request is about."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def service(self, key: Key) -> Document | None:
        """Return a service; None if it does not exist."""
        return self._resources.services.get(key)

    def service_of(self, revision: Key) -> Key | None:
        """Return the service of a revision; None if the revision does not exist."""
        found = self._resources.revisions.get(revision)
        return revision.sibling(service_of(found)) if found else None

    def policy(self, service: Key) -> Document:
        """Return the IAM policy of a service; an empty one if none was set."""
        return self._resources.policy(service)

    def project_id(self, name: str) -> str:
        """Return the ID of a project that is named by its number, and any other name unchanged."""
        return self._resources.project_id(name)

    def region_of(self, host: str, project: str) -> str:
        """Return the region of a request that was sent to `host`, and whose path names none.

        The host's name begins with it, as Google's do. Otherwise it is the only region in which
        the project has services, or the default.
        """
        if found := _HOST.match(host):
            return found[1]
        regions = {key.region for key in self._resources.services if key.project == project}
        return regions.pop() if len(regions) == 1 else _DEFAULT_REGION
