"""Check style and types as CI does; name sessions of noxfile.py to run others.

They run in ship's own environment: none is made for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from scripts import HOME
from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import option


class Options(options.Options, frozen=True, kw_only=True):
    sessions: Annotated[
        tuple[str, ...], option(help="sessions of noxfile.py (default: lint types)")
    ] = ("lint", "types")


def run(options: Options, call: Call) -> int:
    command = [sys.executable, "-m", "nox", "--no-venv", "--sessions", *options.sessions]
    # What a session starts by name is found in the same environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        command, cwd=HOME, env={**os.environ, "PATH": path}, check=False
    ).returncode
