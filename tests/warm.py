"""Starts Shipway's programs in a Python that has already loaded their modules.

Loading them takes most of the time of a command, and the tests run about two thousand commands.
So a process for each worker loads them once, and forks for each command. The fork runs the program
as Python does, with the command's own arguments, folder, environment and streams. A copy of this
project loads its own modules.

A command may start other commands, such as `rehearse` and `trial` do. So it finds itself in an
environment like this one, whose Python asks the server for a fork, too. `environment` names it.

Tests of start-up itself start `./ship` or `sys.executable` instead.
"""

from __future__ import annotations

import _imp
import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in the server, whose folder is this one
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
from tests.warm_python import NUMBER as _NUMBER

SHIP, EMULATOR = "scripts", "emulator"
_ROOT = Path(__file__).resolve().parent.parent
_LIBRARIES = (
    "aiohttp.web", "argparse", "asyncio", "cryptography.x509", "google.auth.transport.requests",
    "google.auth.identity_pool", "google.oauth2.service_account", "jwt", "logging", "msgspec",
    "pkgutil", "requests", "subprocess", "tarfile", "tempfile", "tenacity", "venv", "yaml",
)  # fmt: skip
_reports: dict[int, int] = {}  # in the server: process -> where its exit code goes
_lock = threading.Lock()
_channel: socket.socket | None = None
_folder: Path | None = None


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


def environment() -> str:
    """Return the folder of an environment whose Python runs Shipway's programs in forks."""
    with _lock:
        _server()
    return f"{_folder}/environment"


def _server() -> socket.socket:
    """Return the channel to this worker's server, which the first call starts."""
    global _channel, _folder
    if _channel is None:
        _folder = Path(tempfile.mkdtemp(prefix="warm-"))
        atexit.register(shutil.rmtree, _folder)
        _make_environment(_folder)
        command = [sys.executable, __file__, f"{_folder}/environment"]
        _channel = start_server(_folder, command, os.environ)
    return _channel


def start_server(folder: Path, command: list[str], env: Mapping[str, str]) -> socket.socket:
    """Start a process that calls `forks` with its last two arguments; return the channel to it.

    It listens at `folder`, too: for `client`.
    """
    ours, theirs = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)  # listens before the server is ready
    listener.bind(str(folder / "socket"))
    listener.listen()
    numbers = theirs.fileno(), listener.fileno()
    server = subprocess.Popen([*command, *map(str, numbers)], cwd=_ROOT, env=env, pass_fds=numbers)
    theirs.close()
    listener.close()
    # It ends when its channel does.
    atexit.register(server.wait)
    atexit.register(ours.close)
    return ours


def client(folder: Path) -> str:
    """Return the words of a shell that ask the server at `folder`; PROGRAM and HOME follow."""
    program = Path(__file__).with_name("warm_python.py")
    return shlex.join([sys.executable, "-I", "-S", str(program), str(folder / "socket")])


def _make_environment(folder: Path) -> None:
    """Make an environment with the files of this one, and a Python that asks the server."""
    made, real = folder / "environment", Path(sys.prefix)
    (made / "bin").mkdir(parents=True)
    for place in (real, real / "bin"):
        for path in place.iterdir():
            if path.name != "bin" and not path.name.startswith("python"):
                (made / path.relative_to(real)).symlink_to(path)
    python = made / "bin/python"
    ask = f"exec {client(folder)}"
    python.write_text(
        f"#!/bin/sh\n"
        f'case "$1 $2" in\n'
        f'*"/{SHIP} "*) home=${{1%/*}}; shift; {ask} {SHIP} "$home" "$@" ;;\n'
        f'"-m {EMULATOR}") shift 2; {ask} {EMULATOR} "$PWD" "$@" ;;\n'
        f"esac\n"
        f'exec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)


def _next(channel: socket.socket, listener: socket.socket) -> tuple[bytes, list[int]]:
    """Wait for a request; return its message, its streams, and where its reports go."""
    while True:
        ready, *_ = select.select([channel, listener], [], [])
        if channel in ready:
            message, files = _read(channel)
            if not message:
                sys.exit()
            return message, files
        asking, _ = listener.accept()
        message, files = _read(asking)
        if message:
            return message, [*files, asking.detach()]


def _read(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Return one message and its files; an empty one if the other side is gone."""
    message, files = b"", []
    while not message.endswith(b"\n"):
        piece, more, *_ = socket.recv_fds(channel, 1 << 16, 4)
        if not piece:
            return b"", files
        message += piece
        files += more
    return message, files


def forks(channel: int, listener: int) -> tuple[str, list[str]]:
    """Fork for each command; return in the fork, which has its streams, folder and environment.

    Args:
        channel: the file descriptor of the socket at which this worker asks.
        listener: the one of the socket at which `client` does.

    Returns:
        The command's program, then its home and its arguments.
    """
    message, streams = _fork(socket.socket(fileno=channel), socket.socket(fileno=listener))
    program, home, arguments, cwd, env = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 256)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return program, [home, *arguments]


def _fork(channel: socket.socket, listener: socket.socket) -> tuple[bytes, list[int]]:
    gc.freeze()  # otherwise, garbage collection would copy all of it in each fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        message, files = _next(channel, listener)
        *streams, reports = files
        # Until its report has a place, the end of the command waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        command = os.fork()
        if command == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            listener.detach()
            channel.detach()
            return message, streams
        _reports[command] = reports
        _report_to(reports, command)
        if _is_socket(reports):  # ends the command with SIGIO when its client is gone
            fcntl.fcntl(reports, fcntl.F_SETOWN, command)
            fcntl.fcntl(reports, fcntl.F_SETFL, os.O_ASYNC)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for stream in streams:
            os.close(stream)


def _load_own() -> None:
    """Load every module of Shipway's except those that run when they are loaded.

    Reading the files of a service once makes the tables that msgspec needs for their types.
    """
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


def _is_socket(number: int) -> bool:
    return stat.S_ISSOCK(os.fstat(number).st_mode)


def _become(program: str, home: str, arguments: list[str], environment: str) -> None:
    """Make this fork what Python is when it begins with a command's `__main__`."""
    _open_streams()
    if sys.platform != "linux":  # elsewhere a fork of loaded libraries may crash
        words = [f"{home}/{SHIP}"] if program == SHIP else ["-m", EMULATOR]
        os.execv(sys.executable, [sys.executable, *words, *arguments])
    sys.argv = [program, *arguments]
    sys.path[0] = home
    if program == SHIP:
        sys.prefix, sys.executable = environment, f"{environment}/bin/python"
    if home != str(_ROOT):
        _share_compiled(home)
        for name in [name for name in sys.modules if name.partition(".")[0] in (SHIP, EMULATOR)]:
            del sys.modules[name]


def _open_streams() -> None:
    """Open the standard streams as Python does at its start: a pipe is not a file."""
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, errors=errors, buffering=buffering, closefd=False)
        for number, mode, errors, buffering in (
            (0, "r", None, -1), (1, "w", None, -1), (2, "w", "backslashreplace", 1),
        )
    )  # fmt: skip


def _share_compiled(home: str) -> None:
    """Compile no file of a copy that this project has, too: take its code from here."""
    compiled = SourceFileLoader.source_to_code

    def code_of(self: SourceFileLoader, data: Any, path: Any, **more: Any) -> Any:
        ours = _ROOT / os.path.relpath(path, home)
        if not path.startswith(f"{home}/") or not ours.is_file() or ours.read_bytes() != data:
            return compiled(self, data, path, **more)
        code = SourceFileLoader(self.name, str(ours)).get_code(self.name)
        _imp._fix_co_filename(code, path)
        return code

    SourceFileLoader.source_to_code = code_of  # type: ignore[method-assign]


def end(ended: SystemExit) -> None:
    """End the program as Python does, except that it does not take its memory apart first.

    Taking apart what a fork shares with the server copies most of it.
    """
    if not (isinstance(ended.code, int) and 0 <= ended.code < 256):
        raise ended
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the other threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended.code)


if __name__ == "__main__":
    try:
        for _name in _LIBRARIES:
            importlib.import_module(_name)
        _load_own()
        _program, (_home, *_arguments) = forks(*map(int, sys.argv[2:]))
        _become(_program, _home, _arguments, sys.argv[1])
        if _program == SHIP:
            runpy.run_path(f"{sys.path[0]}/{SHIP}", run_name="__main__")
        else:
            runpy.run_module(EMULATOR, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        end(ended)
