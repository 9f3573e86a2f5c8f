"""Check style and types as CI does; name sessions of noxfile.py to run others.

They run in ship's own environment: none is made for them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from scripts import HOME


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sessions", nargs="*", default=["lint", "types"])


def run(arguments: argparse.Namespace, root: Path) -> int:
    command = [sys.executable, "-m", "nox", "--no-venv", "--sessions", *arguments.sessions]
    # What a session starts by name is found in the same environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        command, cwd=HOME, env={**os.environ, "PATH": path}, check=False
    ).returncode
