"""Ports: no port twice while it is in use, and more blocks once the first ones are full."""

from __future__ import annotations

import contextlib
import socket

from emulator.ports import Ports


def test_more_ports_than_the_first_blocks_hold() -> None:
    ports = Ports()
    with contextlib.ExitStack() as stack:
        stack.callback(ports.close)
        taken = set()
        for _ in range(300):
            port = ports.free()
            assert port not in taken
            taken.add(port)
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(1)


def test_a_port_rests_before_it_is_used_again() -> None:
    ports = Ports()
    try:
        handed_out = [ports.free() for _ in range(150)]
    finally:
        ports.close()
    assert len(set(handed_out)) == 150


def test_two_processes_never_choose_the_same_port() -> None:
    one, other = Ports(), Ports()
    try:
        assert not {one.free() for _ in range(100)} & {other.free() for _ in range(100)}
    finally:
        one.close()
        other.close()
