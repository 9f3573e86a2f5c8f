"""The versions of Shipway, and their sections in CHANGELOG.md. Pure."""

from __future__ import annotations

import re

PATH = "docs/CHANGELOG.md"
_HEADING = re.compile(r"^## (\d+\.\d+\.\d+)\b.*$", re.MULTILINE)
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def number(version: str) -> tuple[int, int, int] | None:
    """Return a version as numbers that can be compared; None for any other text.

    Args:
        version: such as "0.2.0" or "v0.2.0".
    """
    found = _VERSION.fullmatch(version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def between(text: str, old: str, new: str) -> str:
    """Return the sections of the versions after `old`, up to and with `new`, newest first.

    Args:
        text: the text of CHANGELOG.md.
        old: a version, such as "0.1.0".
        new: a version.
    """
    after, last = number(old) or (0, 0, 0), number(new) or (0, 0, 0)
    starts = [*_HEADING.finditer(text)]
    ends = [*(match.start() for match in starts), len(text)][1:]
    sections = [
        text[match.start() : end].strip()
        for match, end in zip(starts, ends, strict=True)
        if after < (number(match[1]) or after) <= last
    ]
    return "\n\n".join(sections)
