"""Long-running operations: each write of a service is one, until the service settles.

The service's annotation `run.googleapis.com/operation-id` names the operation of its last write;
gcloud waits for it instead of polling the service. The discovery document run.v1 defines the shape
of an operation. The code 9 of a failed one is known from the errors of clients of v2, not from a
document.
"""

from __future__ import annotations

import asyncio
from typing import Any

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.run import conditions
from emulator.run.conditions import FALSE, UNKNOWN
from emulator.run.resources import Resources

Document = dict[str, Any]

_FAILED_PRECONDITION = 9
_NOT_FOUND = 5
# Seconds. Cloud Run may wait for less than a client asks; gcloud asks for 30 seconds at a time.
_LONGEST = 60.0


class Operations:
    """Operations, for clients to read and wait for."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def get(self, project: str, region: str, name: str) -> Document:
        """Return one operation; raise ApiError NOT_FOUND."""
        key = self._resources.operations.get(name)
        if key is None or key[:2] != (project, region):
            raise ApiError("NOT_FOUND", f"Operation '{name}' does not exist.")
        service = self._resources.services.get(key)
        operation: Document = {
            "name": f"projects/{project}/locations/{region}/operations/{name}",
            "done": True,
        }
        if service is None:
            message = f"Service '{key.name}' was deleted."
            return {**operation, "error": {"code": _NOT_FOUND, "message": message}}
        ready = conditions.get(service, "Ready")
        if ready.status == UNKNOWN:
            return {**operation, "done": False}
        if ready.status == FALSE:
            error = {"code": _FAILED_PRECONDITION, "message": ready.message}
            return {**operation, "error": error}
        response = {"@type": "type.googleapis.com/google.cloud.run.v1.Service", **service}
        return {**operation, "response": response}

    async def wait(self, project: str, region: str, name: str, body: Document) -> Document:
        """Return the operation once it is done, or unfinished after the body's `timeout`."""
        try:
            seconds = clock.seconds(str(body.get("timeout") or f"{_LONGEST}s"))
        except ValueError:
            raise invalid("Expected a duration such as '30s'.", "timeout") from None
        deadline = asyncio.get_running_loop().time() + min(seconds, _LONGEST)
        while not (operation := self.get(project, region, name))["done"]:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._resources.next_write()
            except TimeoutError:
                break
        return operation
