"""Run the test suite; what follows is handed to pytest."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

from scripts import HOME
from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import rest


class Options(options.Options, frozen=True, kw_only=True):
    pytest: Annotated[
        tuple[str, ...], rest("[pytest's arguments, for example: tests/app -k page]")
    ] = ()


def run(options: Options, call: Call) -> int:
    command = [sys.executable, "-m", "pytest", *options.pytest]
    return subprocess.run(command, cwd=HOME, check=False).returncode
