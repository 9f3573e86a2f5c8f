"""Fields of JSON documents: their names, in JSON and in field masks, their types and depth."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any, TypeVar

import msgspec

from emulator.errors import ApiError, invalid

T = TypeVar("T")

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


def typed(body: dict[str, Any], shape: type[Any]) -> dict[str, Any]:
    """Check the types of a body's fields.

    Args:
        body: The body. null counts as absent.
        shape: A TypedDict of the fields that are checked. Others stay as they are, but not inside
            a TypedDict in it.

    Returns:
        The body. A number that was written as text is one.

    Raises:
        ApiError: INVALID_ARGUMENT; names the field.
    """
    sent: dict[str, Any] = without_null(body)
    return {**sent, **convert(sent, shape, "")}


def convert(value: Any, type_: type[T], whole: str) -> T:
    """Return parsed JSON as a type; raise a 400 ApiError that names the field.

    Numbers may be written as text, as in Google's other JSON APIs. `whole` is the name of the value
    itself.
    """
    try:
        return msgspec.convert(value, type_, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), whole) from error


def without_null(value: Any) -> Any:
    """Return parsed JSON without the fields that are null."""
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value]
    return value


def _refusal(message: str, whole: str) -> ApiError:
    """Return the error for a message of msgspec, whose errors have no field for the place."""
    what, _, place = message.partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        field = f"{path}.{unknown[1]}".lstrip(".")
        where = f" at '{path}'" if path else ""
        return invalid(f'Unknown name "{unknown[1]}"{where}: Cannot find field.', field)
    return invalid(f"Invalid value: {what}", path or whole or None)


def is_deep(value: object, levels: int = _DEEPEST) -> bool:
    """Whether lists and objects are nested in each other too deeply to be written and read."""
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deep(part, levels - 1) for part in parts)
