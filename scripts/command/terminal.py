"""Whether a stream is a terminal, and text for one."""

from __future__ import annotations

import os
from typing import TextIO


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream shows colours and live lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def escape(text: str) -> str:
    """Return text in which rich finds no markup."""
    from rich.markup import escape as escaped

    return escaped(text)
