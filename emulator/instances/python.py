"""The Python of an image that has none: this machine's, as a virtual environment in /usr/local.

There, an image of Docker's `python` has its own: its packages are in
/usr/local/lib/pythonX.Y/site-packages, and its programs in /usr/local/bin.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

FOLDER = "usr/local"


def interpreter() -> Path:
    """Return the file of the interpreter that instances run with."""
    started = getattr(sys, "_base_executable", None) or sys.executable
    return Path(os.path.realpath(started))


def key() -> str:
    """Return a text that differs between interpreters."""
    return hashlib.sha256(f"{interpreter()} {sys.version}".encode()).hexdigest()[:8]


def link(root: Path) -> None:
    """Put the interpreter into an image's files, unless the image has one.

    It must be called before the image's first instance runs: an instance may change its files.
    """
    home = root / FOLDER
    (home / "bin").mkdir(parents=True, exist_ok=True)
    names = ("python", "python3", f"python3.{sys.version_info.minor}")
    if any(os.path.lexists(home / "bin" / name) for name in names):
        return
    for name in names:
        (home / "bin" / name).symlink_to(interpreter())
    settings = f"home = {interpreter().parent}\ninclude-system-site-packages = false\n"
    (home / "pyvenv.cfg").write_text(settings)
