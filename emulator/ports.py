"""Loopback ports that nothing else on the machine is about to use.

A port is chosen here, and an instance binds it later. In between, a port from the system's
ephemeral range could become the local end of an outgoing connection, and two emulators could choose
the same port. So ports come from below that range (32768 on Linux, 49152 on macOS), in blocks: the
emulator that listens on the first port of a block owns the block.
"""

from __future__ import annotations

import random
import socket
from collections import deque

_FIRST, _LAST, _BLOCK = 20_000, 32_000, 50
_BLOCKS_AT_FIRST = 4


class Ports:
    """Free loopback ports, from blocks that this process owns until it ends."""

    def __init__(self) -> None:
        self._guards: list[socket.socket] = []
        self._ring: deque[int] = deque()

    def free(self) -> int:
        """Return a port that is free now, and that no other emulator chooses.

        Ports take turns, so that each one rests for long before it is used again.

        Raises:
            OSError: Every block of the range is in use.
        """
        while len(self._guards) < _BLOCKS_AT_FIRST:
            self._claim()
        while True:
            for _ in range(len(self._ring)):
                port = self._ring.popleft()
                self._ring.append(port)
                if is_free(port):
                    return port
            self._claim()

    def blocks(self) -> list[range]:
        """Return the blocks that are owned now."""
        bases = (guard.getsockname()[1] for guard in self._guards)
        return [range(base, base + _BLOCK) for base in bases]

    def _claim(self) -> None:
        bases = list(range(_FIRST, _LAST, _BLOCK))
        random.shuffle(bases)
        for base in bases:
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", base))
                guard.listen(1)
            except OSError:
                guard.close()
                continue
            self._guards.append(guard)
            self._ring.extendleft(reversed(range(base + 1, base + _BLOCK)))
            return
        raise OSError(f"no free block of ports between {_FIRST} and {_LAST}")

    def close(self) -> None:
        """Release the blocks."""
        for guard in self._guards:
            guard.close()
        self._guards.clear()
        self._ring.clear()


def is_free(port: int) -> bool:
    """Return whether a process can listen on `port` now, on every address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
        return True
