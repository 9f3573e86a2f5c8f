"""A scratch clone and a scratch local Cloud Run, for `demo`, `trial` and `rehearse`.

Nothing outlives the folder that they are given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts import HOME
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.errors import Failed, UsageError

_GRACE_SECONDS = 30


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run git in a scratch clone; return what it prints.

    Raises:
        UsageError: it fails.
    """
    # These commits must not use the user's name, hooks or signing key.
    settings = ["user.name=shipway", "user.email=shipway@localhost", "commit.gpgsign=false",
                "core.hooksPath=/dev/null", "advice.detachedHead=false"]  # fmt: skip
    flags = [word for setting in settings for word in ("-c", setting)]
    done = subprocess.run(
        ["git", *flags, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UsageError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def deferred() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM while a process is being started or stopped."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        seen.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if seen and signal.SIG_IGN not in before.values():
        raise KeyboardInterrupt


@contextmanager
def ship(
    *arguments: str, cwd: Path, url: str, stderr: int | None = None, **env: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a Shipway command in a scratch clone, on a local Cloud Run; stop it on leaving.

    Args:
        arguments: the verb and its options.
        cwd: the clone.
        url: the local Cloud Run's URL.
        stderr: as for `subprocess.Popen`.
        env: more environment variables; "" removes one.
    """
    variables = {**os.environ, ENDPOINT_VARIABLE: url, **env}
    process: subprocess.Popen[str] | None = None
    try:
        with deferred():
            process = subprocess.Popen(
                [sys.executable, str(HOME / "scripts"), *arguments],
                cwd=cwd,
                env={name: value for name, value in variables.items() if env.get(name) != ""},
                stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace",
                # A separate process group, so that it is stopped with everything that it starts.
                start_new_session=True,
            )  # fmt: skip
        yield process
    finally:
        if process:
            with deferred():
                _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Stop a process and everything that it started: with SIGTERM, and then with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=_GRACE_SECONDS)
        except (ProcessLookupError, PermissionError):
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()


@contextmanager
def local_cloud_run(
    folder: Path, *, runtime: str = "process", iam: str = "none"
) -> Iterator[LocalCloudRun]:
    """Run a local Cloud Run, and stop it on leaving.

    Args:
        folder: the folder for its state; created.
        runtime: what runs instances: "auto", "process" or "docker".
        iam: "enforce" if callers need permissions, else "none".

    Raises:
        Failed: it does not start; the evidence is its output.
    """
    started = LocalCloudRun(folder, runtime, iam)
    try:
        started.start()
        yield started
    finally:
        with deferred():
            started.stop()


class LocalCloudRun:
    """A local Cloud Run in its own process; `url` is its API's URL."""

    def __init__(self, folder: Path, runtime: str, iam: str) -> None:
        self.folder = folder
        self.runtime = runtime
        self.iam = iam
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it at a free port."""
        log = self.folder.with_suffix(".log")
        with deferred(), log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(HOME / "scripts"), "up", "--port", "0",
                 "--state", str(self.folder), "--runtime", self.runtime, "--iam", self.iam],
                stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        if self.url:
            return
        self.stop()
        raise Failed(
            "the local Cloud Run did not start",
            "./ship up shows the reason",
            evidence=log.read_text(errors="replace").splitlines()[-5:],
        )

    @property
    def secret(self) -> dict[str, str]:
        """The header that its requests below `/_local/` need."""
        return {"Shipway-Secret": (self.folder / "local-secret").read_text()}

    def wait(self) -> None:
        """Wait until it ends."""
        if self.process:
            self.process.wait()

    def stop(self) -> None:
        """Stop it and its instances, and remove the images that Docker pulled from it."""
        if self.process is None:
            return
        # It stops its instances itself; its process group is killed only if it does not.
        self.process.terminate()
        try:
            self.process.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _end(self.process)
        if self.process.stdout:
            self.process.stdout.close()
        self.process = None
        # The file exists once a container ran: any runtime may need one.
        if self.url and (self.folder / "instances" / "docker-used").exists():
            _forget_images(self.url.partition("://")[2])


def _forget_images(host: str) -> None:
    """Remove a registry's images from the Docker engine: the registry no longer exists."""
    # By name: the user may have the same image under another one.
    shown = "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}"
    listed = subprocess.run(
        ["docker", "image", "ls", "--digests", "--format", shown, f"{host}/*/*/*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = sorted(name for name in set(listed.stdout.split()) if not name.endswith("<none>"))
    if found:
        subprocess.run(
            ["docker", "image", "rm", "--force", *found], capture_output=True, check=False
        )
