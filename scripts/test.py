"""Run the test suite; what follows is handed to pytest."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from scripts import HOME


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "ship test [pytest's arguments, for example: tests/app -k page]"
    parser.set_defaults(handed_on=[])


def run(arguments: argparse.Namespace, root: Path) -> int:
    command = [sys.executable, "-m", "pytest", *arguments.handed_on]
    return subprocess.run(command, cwd=HOME, check=False).returncode
