"""The full name of a secret: projects/PROJECT/secrets/NAME."""

from __future__ import annotations

import re

PATTERN = r"projects/[a-z0-9-]+/secrets/[A-Za-z0-9_-]+"
"""What Shipway's files take."""


def parse(text: str) -> tuple[str, str] | None:
    """Return the project and the name of a secret; None if the text is not such a name."""
    match = re.fullmatch(r"projects/([^/]+)/secrets/([^/]+)", text)
    return (match[1], match[2]) if match else None
