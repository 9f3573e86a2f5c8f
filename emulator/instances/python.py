"""A Python for instances: the emulator's interpreter without its packages."""

from __future__ import annotations

import shutil
import sys
import venv
from pathlib import Path


def bare_python(folder: Path) -> Path:
    """Return the folder of `python` in a virtual environment without packages.

    The first call creates it in `folder`. It is created again when its interpreter was removed.
    """
    home = folder / f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (home / "bin" / "python").exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.EnvBuilder(symlinks=True, with_pip=False).create(home)
    return home / "bin"
