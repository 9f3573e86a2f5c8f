"""Names of fields, in JSON and in field masks."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from emulator.errors import invalid


def camel(path: str) -> str:
    """Return a field's name or path as JSON writes it: `attributeMapping`.

    Some clients send snake case in field masks and filters.
    """
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), path)


def snake(name: str) -> str:
    """Return a field's name in snake case: `attribute_mapping`."""
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def check_known(names: Iterable[str], known: Container[str]) -> None:
    """Raise ApiError INVALID_ARGUMENT for the first of a body's `names` that is not `known`."""
    for name in names:
        if name not in known:
            raise invalid(f'Invalid JSON payload received. Unknown name "{name}"', name)
