"""Fields of JSON documents: their names, in JSON and in field masks, and how deep they are."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from emulator.errors import invalid

# Levels. Source: https://protobuf.dev/programming-guides/proto-limits/ (the depth of a message).
_DEEPEST = 100


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


def is_deep(value: object, levels: int = _DEEPEST) -> bool:
    """Whether lists and objects are nested in each other too deeply to be written and read."""
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deep(part, levels - 1) for part in parts)
