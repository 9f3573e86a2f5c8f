"""Check style, types and security as CI does; name sessions of noxfile.py to run others.

They run in ship's own environment: none is made for them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from scripts.core import HOME


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sessions", nargs="*", default=["lint", "types", "security"])


def run(arguments: argparse.Namespace, root: Path) -> int:
    command = [sys.executable, "-m", "nox", "--no-venv", "--sessions", *arguments.sessions]
    return subprocess.run(command, cwd=HOME, check=False).returncode
