"""Parsers for the values of options. Each takes the text that the user typed."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Collection

from scripts.command.visible import visible
from scripts.config.pipelines import seconds
from scripts.errors import UsageError

_LONGEST_REASON = 300


def percent(text: str) -> int | None:
    """Return a percentage, 1 to 100; None for a form's empty field."""
    text = text.strip().removesuffix("%").rstrip()
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ArgumentTypeError(f"'{text}' is not a percentage (1 to 100)")
    return int(text)


def count(text: str) -> int:
    """Return a number of things, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}' is not a number (1 or more)")
    return int(text)


def image_digest(text: str) -> str:
    """Return an image's digest.

    Source: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
    """
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ArgumentTypeError(
            f"'{text}' is not a digest: sha256: and 64 hexadecimal digits, as `ship build` prints"
        )
    return text


def image_digests(text: str) -> dict[str, str]:
    """Return the name of each image's repository below the registry -> its digest.

    The name is "" for a digest alone, which is the image of the one service.
    """
    if "=" not in text:
        return {"": image_digest(text)}
    found: dict[str, str] = {}
    for one in filter(None, map(str.strip, text.split(","))):
        name, digest = name_and_value(one)
        if name in found:
            raise ArgumentTypeError(f"{name} appears twice")
        found[name] = image_digest(digest)
    return found


def digests_of(given: dict[str, str], service: str, services: Collection[str]) -> dict[str, str]:
    """Return the digests of one service's images: the name of each repository -> its digest.

    Args:
        given: as `image_digests` returns them.
        service: the service.
        services: all services that the command is about.

    Raises:
        UsageError: its digest is missing.
    """
    if "" in given and len(services) == 1:
        return {service: given[""]}
    own = {name: one for name, one in given.items() if name.partition("/")[0] == service}
    if service not in own:
        raise UsageError(
            f"--digest names no image of {service}",
            f"--digest {','.join(f'{name}=sha256:…' for name in services)}",
        )
    return own


def hold_name(text: str) -> str:
    """Return a hold's name. It is typed after --override, so it contains no shell syntax."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise ArgumentTypeError(
            f"'{text}' is not a name: lower-case letters, digits and hyphens, at most 63"
        )
    return text


def reason(text: str) -> str:
    """Return a reason: one visible line that fits into the history."""
    line = " ".join(visible(text).split())
    if len(line) > _LONGEST_REASON:
        raise ArgumentTypeError(f"{len(line)} characters; at most {_LONGEST_REASON}")
    return line


def duration(text: str) -> str:
    """Return a duration as it is written in files: 90s, 5m, 1h."""
    try:
        seconds(text)
    except UsageError as error:
        raise ArgumentTypeError(error.message) from None
    return text


def name_and_value(text: str) -> tuple[str, str]:
    """Return the two parts of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ArgumentTypeError(f"'{text}': write NAME=VALUE")
    return name, value


def branch(text: str) -> str:
    """Return a branch's full reference."""
    if not re.fullmatch(r"refs/heads/[A-Za-z0-9_][\w./-]*", text):
        raise ArgumentTypeError(f"'{text}': write a branch in full, such as refs/heads/main")
    return text


def text_or_none(text: str) -> str | None:
    """Return text; None for a form's empty field."""
    return text or None
