"""Loopback ports that nothing else on the machine is about to take.

A port is chosen here and bound later by an instance. Ports from the system's ephemeral range could
become the local end of some outgoing connection in between, and two emulators could choose the same
one. So ports come from below that range (32768 on Linux, 49152 on macOS), in blocks: who listens on
a block's first port owns the block.
"""

from __future__ import annotations

import random
import socket

_FIRST, _LAST, _BLOCK = 20_000, 32_000, 50


class Ports:
    """Hands out free loopback ports, from blocks that this process holds until it ends."""

    def __init__(self) -> None:
        self._guards: list[socket.socket] = []
        self._base = 0
        self._next = _BLOCK

    def free(self) -> int:
        """A port that nobody listens on now and that no other emulator is going to choose."""
        for _ in range(10 * _BLOCK):
            if self._next >= _BLOCK:
                self._turn_over()
            port = self._base + self._next
            self._next += 1
            if is_free(port):
                return port
        raise OSError("no free loopback port found")

    def _turn_over(self) -> None:
        """Go to the next block: round again through few blocks, so that ports rest before reuse."""
        if len(self._guards) >= 4:
            self._guards.append(self._guards.pop(0))
            self._base = self._guards[-1].getsockname()[1]
        else:
            self._base = self._claim()
        self._next = 1

    def _claim(self) -> int:
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
            return base
        raise OSError(f"no free block of ports between {_FIRST} and {_LAST}")

    def close(self) -> None:
        """Give the blocks back."""
        for guard in self._guards:
            guard.close()
        self._guards.clear()
        self._next = _BLOCK


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
