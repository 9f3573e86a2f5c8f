"""What the process of one service knows of the others: `./ship VERB A B` runs one for each."""

from __future__ import annotations

import os
from collections.abc import Collection

VARIABLE = "SHIPWAY_TOGETHER"
"""Names the services of the command, with commas between them."""


def services() -> Collection[str]:
    """Return the services of the command that started this process; empty if none did."""
    return {name for name in os.environ.get(VARIABLE, "").split(",") if name}
