"""Loopback ports that nothing else on the machine is about to take.

A port is chosen here and bound later by an instance. Ports from the system's ephemeral range could
become the local end of some outgoing connection in between, and two emulators could choose the same
one. So ports come from below that range (32768 on Linux, 49152 on macOS), in blocks: who listens on
a block's first port owns the block.
"""

from __future__ import annotations

import random
import socket
from collections import deque

_FIRST, _LAST, _BLOCK = 20_000, 32_000, 50
_BLOCKS_AT_FIRST = 4


class Ports:
    """Hands out free loopback ports, from blocks that this process holds until it ends."""

    def __init__(self) -> None:
        self._guards: list[socket.socket] = []
        self._ring: deque[int] = deque()

    def free(self) -> int:
        """A port that nobody listens on now and that no other emulator is going to choose.

        Ports are handed out in turn, so that each rests for long before it is used again.

        Raises:
            OSError: every block of the range is taken.
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
        """Give the blocks back."""
        for guard in self._guards:
            guard.close()
        self._guards.clear()
        self._ring.clear()


def is_free(port: int) -> bool:
    """Whether `port` can be listened on, on every address, right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
        return True
