"""A bare Python for instances: the interpreter that runs the emulator, without its packages."""

from __future__ import annotations

import shutil
import sys
import venv
from pathlib import Path


def bare_python(folder: Path) -> Path:
    """The folder that holds `python`, of a virtual environment with no packages in `folder`.

    It is made on first use, and made again when the interpreter it stands on has gone.
    """
    home = folder / f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (home / "bin" / "python").exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.EnvBuilder(symlinks=True, with_pip=False).create(home)
    return home / "bin"
