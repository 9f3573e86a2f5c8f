"""Runs one of Shipway's programs in the warm server, for a command that starts it as a process.

`warm.py` starts this file in place of Python. It hands on the streams, the folder, the environment
and signals, and ends as the program does. If it is killed, the server's fork is, too.

Usage: python -I -S warm_python.py SOCKET PROGRAM HOME ARGUMENTS...
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys

NUMBER = struct.Struct("q")


def main(path: str, program: str, home: str, *arguments: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        message = json.dumps([program, home, arguments, os.getcwd(), dict(os.environ)])
        socket.send_fds(server, [message[:1].encode()], [0, 1, 2])
        server.sendall(f"{message[1:]}\n".encode())
        (process,) = NUMBER.unpack(server.recv(NUMBER.size))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(process, number))
        (code,) = NUMBER.unpack(server.recv(NUMBER.size))
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
