"""Starts Shipway's programs in a Python that has already loaded their modules.

Loading them takes most of the time of a command, and the tests run about two thousand commands.
So a process for each worker loads them once, and forks for each command. The fork runs the program
as Python does, with the command's own arguments, folder, environment and streams. A copy of this
project loads its own modules.

Tests of start-up itself start `./ship` or `sys.executable` instead.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SHIP, EMULATOR = "scripts", "emulator"
_ROOT = Path(__file__).resolve().parent.parent
_LIBRARIES = (
    "aiohttp.web", "argparse", "asyncio", "cryptography.x509", "google.auth.transport.requests",
    "google.auth.identity_pool", "google.oauth2.service_account", "jwt", "logging", "msgspec",
    "pkgutil", "requests", "subprocess", "tarfile", "tempfile", "tenacity", "venv", "yaml",
)  # fmt: skip
_NUMBER = struct.Struct("q")
_reports: dict[int, int] = {}  # in the server: process -> where its exit code goes
_lock = threading.Lock()
_channel: socket.socket | None = None


class Process:
    """A running program of Shipway.

    Args:
        program: SHIP or EMULATOR.
        arguments: its command line.
        home: the folder that holds it: this project, or a copy of it.
        cwd: the folder that it starts in.
        env: its whole environment.
        stdout: the file descriptor of its standard output.
        stderr: the file descriptor of its standard error.
    """

    def __init__(
        self, program: str, *arguments: str, home: Path = _ROOT, cwd: Path, env: Mapping[str, str],
        stdout: int, stderr: int,
    ) -> None:  # fmt: skip
        self.returncode: int | None = None
        self._reports, reporting = os.pipe()
        message = json.dumps([program, str(home), arguments, str(cwd), dict(env)]).encode() + b"\n"
        with open(os.devnull, "rb") as stdin, _lock:
            socket.send_fds(_server(), [message], [stdin.fileno(), stdout, stderr, reporting])
            os.close(reporting)
            self.pid = self._report()

    def poll(self) -> int | None:
        """Return the exit code as subprocess does, or None while the program runs."""
        return self._end(0)

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended after `timeout` seconds.
        """
        code = self._end(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def _end(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self._reports], [], [], timeout)[0]:
            self.returncode = self._report()
            os.close(self._reports)
        return self.returncode

    def _report(self) -> int:
        number: int
        (number,) = _NUMBER.unpack(os.read(self._reports, _NUMBER.size))
        return number


def ship(
    *arguments: str, home: Path = _ROOT, cwd: Path, env: Mapping[str, str], timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, as `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it did not end and was killed; holds what it wrote.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = Process(
            SHIP, *arguments, home=home, cwd=cwd, env=env, stdout=out.fileno(), stderr=err.fileno()
        )
        in_time = process._end(timeout) is not None
        if not in_time:
            os.kill(process.pid, signal.SIGKILL)
        code = process.wait(timeout)
        written = [(file.seek(0), file.read())[1] for file in (out, err)]
    if not in_time:
        raise subprocess.TimeoutExpired(arguments, timeout, *written)
    return subprocess.CompletedProcess(arguments, code, *map(bytes.decode, written))


def _server() -> socket.socket:
    """Return the channel to this worker's server, which the first call starts."""
    global _channel
    if _channel is None:
        _channel, theirs = socket.socketpair()
        command = [sys.executable, __file__, str(theirs.fileno())]
        server = subprocess.Popen(command, cwd=_ROOT, pass_fds=[theirs.fileno()])
        theirs.close()
        # It ends when its channel does.
        atexit.register(server.wait)
        atexit.register(_channel.close)
    return _channel


def _serve(channel: socket.socket) -> str:
    """Fork for each command; return in the fork, with the program that it is to run."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    _load_own()
    gc.freeze()  # otherwise, garbage collection would copy all of it in each fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        message, files = b"", []
        while not message.endswith(b"\n"):
            piece, more, *_ = socket.recv_fds(channel, 1 << 16, 4)
            if not piece:
                sys.exit()
            message += piece
            files += more
        *streams, reports = files
        # Until its report has a place, the end of the command waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        command = os.fork()
        if command == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            return _become(message, streams)
        _reports[command] = reports
        _report_to(reports, command)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for stream in streams:
            os.close(stream)


def _load_own() -> None:
    """Load every module of Shipway's except those that run when they are loaded.

    Reading the files of a service once makes the tables that msgspec needs for their types.
    """
    sys.path[0] = str(_ROOT)
    for path in sorted(path for name in (SHIP, EMULATOR) for path in (_ROOT / name).rglob("*.py")):
        if path.name != "__main__.py":
            importlib.import_module(
                ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
            )
    importlib.import_module("scripts.config.pipelines").load(_ROOT / "tests", "app", "local")


def _reap(*_: object) -> None:
    """Report the exit codes of the commands that have ended."""
    with suppress(ChildProcessError):
        while True:
            command, status = os.waitpid(-1, os.WNOHANG)
            if not command:
                return
            reports = _reports.pop(command)
            _report_to(reports, os.waitstatus_to_exitcode(status))
            os.close(reports)


def _report_to(reports: int, number: int) -> None:
    with suppress(BrokenPipeError):  # who started the command is gone
        os.write(reports, _NUMBER.pack(number))


def _become(message: bytes, streams: list[int]) -> str:
    """Make this fork what Python is when it begins with a command's `__main__`."""
    program, home, arguments, cwd, env = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 256)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "linux":  # elsewhere a fork of loaded libraries may crash
        words = [f"{home}/{SHIP}"] if program == SHIP else ["-m", EMULATOR]
        os.execv(sys.executable, [sys.executable, *words, *arguments])
    sys.argv = [program, *arguments]
    sys.path[0] = home
    if home != str(_ROOT):
        for name in [name for name in sys.modules if name.partition(".")[0] in (SHIP, EMULATOR)]:
            del sys.modules[name]
    return str(program)


def _end(code: int) -> None:
    """End the program as Python does, except that it does not take its memory apart first.

    Taking apart what a fork shares with the server copies most of it.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the other threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        if _serve(socket.socket(fileno=int(sys.argv[1]))) == SHIP:
            runpy.run_path(f"{sys.path[0]}/{SHIP}", run_name="__main__")
        else:
            runpy.run_module(EMULATOR, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, int) and 0 <= ended.code < 256:
            _end(ended.code)
        raise
