"""Long-running operations of every API but Cloud Run's.

The work is finished before the first answer, which reports it as running: a client has to wait for
the operation, as at Google's. Source: https://google.aip.dev/151.
"""

from __future__ import annotations

import uuid
from typing import Any

from emulator.errors import ApiError
from emulator.hashes import hex_of
from emulator.store import Store

Document = dict[str, Any]

TYPES = "type.googleapis.com"
EMPTY = f"{TYPES}/google.protobuf.Empty"


class Operations:
    """The operations of every project."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def start(
        self,
        parent: str,
        response_type: str,
        response: Document,
        metadata: Document | None = None,
        prefix: str = "",
    ) -> Document:
        """Store a finished operation.

        Args:
            parent: How the operation's name begins: "" or a resource's name with a slash.
            response_type: The full name of the response's type, such as google.protobuf.Empty.
            response: The response.
            metadata: The operation's metadata, with its `@type`.
            prefix: How the operation's ID begins.

        Returns:
            The operation, not done yet.
        """
        name = f"{parent}operations/{prefix}{uuid.uuid4()}"
        shown: Document = {"name": name, **({"metadata": metadata} if metadata else {})}
        answer = {"@type": f"{TYPES}/{response_type}", **response}
        self._store.write(_file(name), {**shown, "done": True, "response": answer})
        return shown

    def get(self, name: str) -> Document:
        """Return an operation, which is done; raises ApiError NOT_FOUND."""
        found: Document | None = self._store.read(_file(name))
        if found is None:
            raise ApiError("NOT_FOUND", f"Operation '{name}' does not exist.")
        return found


def _file(name: str) -> str:
    return f"{hex_of(name)}.json"
