"""Long-running operations of every API but Cloud Run's: not done when first answered, then done.

What an operation does is done when it is answered; only the word of it comes later, so that clients
wait as they have to at Google's. Source: https://google.aip.dev/151.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from emulator.errors import ApiError
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
        """Keep a finished operation under `parent`; returns it as it is before it is done.

        `response_type` is the full name of the response's type, such as google.protobuf.Empty.
        """
        name = f"{parent}operations/{prefix}{uuid.uuid4()}"
        shown: Document = {"name": name, **({"metadata": metadata} if metadata else {})}
        answer = {"@type": f"{TYPES}/{response_type}", **response}
        self._store.write(_file(name), {**shown, "done": True, "response": answer})
        return shown

    def get(self, name: str) -> Document:
        """One operation, done; raises ApiError NOT_FOUND."""
        found: Document | None = self._store.read(_file(name))
        if found is None:
            raise ApiError("NOT_FOUND", f"Operation '{name}' does not exist.")
        return found


def _file(name: str) -> str:
    return f"{hashlib.sha256(name.encode()).hexdigest()}.json"
