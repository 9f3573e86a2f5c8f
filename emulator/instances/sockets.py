"""The processes that a process started, and the ports that they listen on. Linux only.

Source: https://man7.org/linux/man-pages/man5/proc_pid_net.5.html (the tables tcp and tcp6),
https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_LISTENS = "0A"
# 127.0.0.1 and ::1, as the tables write them.
_LOOPBACK = ("0100007F", "00000000000000000000000001000000")


class Listener(NamedTuple):
    """A port that a process listens on, and whether only on a loopback address."""

    port: int
    loopback: bool


def family(pid: int) -> list[int]:
    """Return a process and those that it started, oldest first; without /proc, only itself."""
    children: dict[int, list[int]] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def first_child(pid: int) -> int | None:
    """Return the first process that a process started, if it runs."""
    try:
        listed = (_PROC / f"{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(listed[0]) if listed else None


def listening(pids: Iterable[int]) -> set[Listener]:
    """Return the TCP ports that processes listen on."""
    found: set[Listener] = set()
    for pid in pids:
        inodes = set(_sockets(pid))
        for inode, listener in _table(pid) if inodes else ():
            if inode in inodes:
                found.add(listener)
    return found


def in_network(pid: int) -> set[Listener]:
    """Return the TCP ports on which any process listens in the network of a process."""
    return {listener for _, listener in _table(pid)}


def has_route(pid: int) -> bool:
    """Return whether the network of a process leads anywhere."""
    for name, column in (("route", 1), ("ipv6_route", 0)):
        with contextlib.suppress(OSError):
            for line in (_PROC / f"{pid}/net/{name}").read_text().splitlines():
                fields = line.split()
                if set(fields[column]) == {"0"} and "lo" not in (fields[0], fields[-1]):
                    return True
    return False


def ticks(pids: Iterable[int]) -> int:
    """Return how much CPU time processes used, in clock ticks."""
    used = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            fields = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
    return used


def _sockets(pid: int) -> Iterator[str]:
    """Yield the inodes of a process's sockets."""
    with contextlib.suppress(OSError):
        for descriptor in os.scandir(_PROC / f"{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(descriptor.path)
                if target.startswith("socket:["):
                    yield target[8:-1]


def _table(pid: int) -> Iterator[tuple[str, Listener]]:
    """Yield the inode of each socket that listens in a process's network."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / f"{pid}/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].partition(":")
                if fields[3] == _LISTENS:
                    yield fields[9], Listener(int(port, 16), address in _LOOPBACK)
