"""The death of the process that started this one ends it as Ctrl-C does."""

from __future__ import annotations

import os
import signal

VARIABLE = "SHIPWAY_ALIVE"
"""Names the end of a pipe that closes when the starting process is gone."""


def watch() -> None:
    """End this process when the one that started it is gone, if that asked for it."""
    number = os.environ.pop(VARIABLE, "")
    try:
        os.set_inheritable(int(number), False)
    except (ValueError, OSError):  # no one asks for it
        return

    import threading

    def wait() -> None:
        os.read(int(number), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
