"""Serve the local Cloud Run in the foreground, until Ctrl-C.

The first line on standard output is the base URL of its API.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from scripts import HOME


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8787, help="0 picks a free one (%(default)s)")
    parser.add_argument("--state", type=Path, help="where it keeps everything (.shipway/cloud-run)")
    parser.add_argument(
        "--runtime",
        choices=["process", "docker"],
        default="process",
        help="what runs instances: processes of this machine, or a Docker engine (%(default)s)",
    )
    parser.add_argument(
        "--iam",
        choices=["none", "enforce"],
        default="none",
        help="enforce: callers need a token and the permission for what they do (%(default)s)",
    )


def run(arguments: argparse.Namespace, root: Path) -> int:
    state = (arguments.state or root / ".shipway" / "cloud-run").absolute()
    command = ["-m", "emulator", "--port", str(arguments.port), "--state", str(state)]
    command += ["--runtime", arguments.runtime]
    command += ["--iam", arguments.iam]
    # The emulator is a program of its own: it is met over HTTP alone, as Cloud Run is.
    os.chdir(HOME)
    os.execv(sys.executable, [sys.executable, *command])
