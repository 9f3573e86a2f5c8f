"""The local Cloud Run of a checkout: `endpoint: up` stands for its address.

A checkout has at most one. It holds a lock of `.shipway/up.lock` while it runs, so what
`.shipway/up.json` says counts only while the lock is held: not after a crash or a restart of the
machine, whoever has its port by then.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

import msgspec

from scripts.errors import UsageError

UP = "up"
"""The value of an environment's `endpoint` that stands for it."""
ENFORCE = "enforce"
"""The value of its option `--iam` with which callers need permissions."""
LOG = Path(".shipway", "up.log")
"""The output of one that runs in the background."""
SECRET_HEADER = "Shipway-Secret"  # noqa: S105  (a header's name)
"""The header of requests below /_local/."""
_SETTLE_SECONDS = 30.0
_HERE = re.compile(r"http://127\.0\.0\.1:\d{1,5}")


class NotUp(UsageError):
    """The local Cloud Run of this checkout is not up."""

    def __init__(self) -> None:
        super().__init__("the local Cloud Run is not up", "start it: ./ship up --background")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A local Cloud Run that is up, with the options that it was started with."""

    url: str
    folder: str
    """The checkout that it belongs to."""
    pid: int
    state: str
    runtime: str = ""
    iam: str = ""
    max_image_bytes: int = 0
    max_image_files: int = 0
    allow_host: tuple[str, ...] = ()

    @property
    def secret(self) -> dict[str, str]:
        """The header that its requests below `/_local/` need."""
        secret = Path(self.state, "local-secret").read_text(encoding="utf-8")
        return {SECRET_HEADER: secret}


def is_locked(checkout: Path) -> bool:
    """Return whether a local Cloud Run of the checkout is up, starts or ends."""
    try:
        lock = os.open(checkout / ".shipway" / "up.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def find(checkout: Path) -> Running | None:
    """Return the local Cloud Run of a checkout; None if it is not up, or only starts.

    Raises:
        UsageError: it belongs to another checkout, which this folder was copied from.
    """
    file = checkout / ".shipway" / "up.json"
    if not is_locked(checkout):
        return None
    try:
        # Not through a link, nor of another user: secrets go where it says.
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as opened:
            if os.fstat(opened.fileno()).st_uid != os.getuid():
                raise ValueError("it belongs to another user")
            found = msgspec.json.decode(opened.read(), type=Running)
        if not _HERE.fullmatch(found.url):
            raise ValueError("its address is not of this machine")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise UsageError(
            f"{file}: cannot be read: {error}", "end ./ship up, and start it again"
        ) from None
    if found.folder != str(checkout.resolve()):
        raise of_another(found.url, found.folder)
    return found


def settled(checkout: Path) -> Running | None:
    """Return the local Cloud Run of a checkout, as `find` does; wait while one starts or ends."""
    until = time.monotonic() + _SETTLE_SECONDS
    while (found := find(checkout)) is None and is_locked(checkout) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def address(checkout: Path) -> str:
    """Return the address of the local Cloud Run of a checkout.

    Raises:
        NotUp: it is not up.
        UsageError: it belongs to another checkout.
    """
    found = find(checkout)
    if found is None:
        raise NotUp
    return found.url


def of_another(url: str, folder: str) -> UsageError:
    """Make the error for a local Cloud Run that belongs to another checkout."""
    return UsageError(
        f"the local Cloud Run at {url} belongs to another checkout: {folder}",
        "to use one of this checkout: write endpoint: up, and type ./ship up",
    )
