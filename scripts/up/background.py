"""Start the local Cloud Run of a checkout in the background, and end it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from scripts import HOME
from scripts.cloud.local_identity import send
from scripts.config import running
from scripts.config.running import Running
from scripts.errors import Failed

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


def start(root: Path, command: list[str]) -> Running:
    """Start it and wait until it answers; if someone else starts it meanwhile, wait for that one.

    Args:
        root: the checkout.
        command: becomes the local Cloud Run.

    Raises:
        Failed: it does not start; the evidence is its output.
    """
    with _one_at_a_time(root):
        if found := running.settled(root):
            return found
        log = root / running.LOG
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=HOME, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            # Asked before the address: it may answer and end at once.
            ended = process.poll() is not None
            if found := running.find(root):
                return found
            if ended:
                break
            time.sleep(0.02)
        process.kill()
        process.wait()
    raise Failed(
        "the local Cloud Run did not start",
        "./ship up starts it in this terminal",
        evidence=log.read_text(errors="replace").splitlines()[-5:],
    )


def stop(root: Path) -> int:
    """End it and its instances; return the exit code.

    Raises:
        Failed: it does not end.
    """
    found = running.settled(root)
    if found is None:
        print("The local Cloud Run is not up.", file=sys.stderr)
        return 0
    failed = Failed(
        f"the local Cloud Run at {found.url} does not end", f"end its process: kill -9 {found.pid}"
    )
    try:
        send(found, "POST", "/_local/stop", {}, found.secret).raise_for_status()
    except (requests.RequestException, OSError) as error:
        raise failed from error
    until = time.monotonic() + _STOP_SECONDS
    while running.is_locked(root):
        if time.monotonic() > until:
            raise failed
        time.sleep(0.02)
    print(f"The local Cloud Run at {found.url} has ended. Its state stays.", file=sys.stderr)
    return 0


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    (folder := root / ".shipway").mkdir(exist_ok=True)
    with (folder / "up-starts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
