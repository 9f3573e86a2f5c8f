"""Installs the packages that a verb needs into ship's own environment, then runs the verb in it.

    python launch.py VENV [VERB ...]

Standard library only: `./ship` starts this with any Python while there is no environment yet.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

# Ctrl-C just ends the program, except while packages are installed.
signal.signal(signal.SIGINT, signal.SIG_DFL)
HOME = Path(__file__).resolve().parents[2]
sys.path[0] = str(HOME)

from scripts.command import verbs  # noqa: E402  (the line above makes it importable)


def main(venv: Path, argv: list[str]) -> None:
    """Install the packages that the verb needs, if they are missing, and run it.

    Args:
        venv: the environment's folder.
        argv: the command line without the program's name.
    """
    program = str(HOME / "scripts")
    wanted = [HOME / "requirements" / f"{name}.txt" for name in verbs.lock_files(argv)]
    python = venv / "bin" / "python"
    if not python.exists() or not any(_installed(venv, lock_file) for lock_file in wanted):
        from scripts.command import terminal
        from scripts.machine.venv import make

        terminal.guard()
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler)
            make(venv, wanted[0])
        except KeyboardInterrupt:
            print("\nship: interrupted; the next command sets its packages up", file=sys.stderr)
            sys.exit(130)
    elif Path(sys.prefix) == venv:
        # The normal case: this Python is the environment's, so a second one need not start.
        sys.argv = [program, *argv]
        runpy.run_path(program, run_name="__main__")
        return
    os.execv(python, [str(python), program, *argv])


def _installed(venv: Path, lock_file: Path) -> bool:
    """Return whether the environment was made from the current lock file."""
    try:
        return (venv / f"has-{lock_file.name}").read_bytes() == lock_file.read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
