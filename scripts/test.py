"""Run the whole test suite, or in a fork the tests of the fork.

In a fork, these are tests/app and the rules of its workflows. Shipway's own suite runs as well if
Shipway's files differ from the version in .shipway.toml, and always in Shipway's own repository.
Other arguments go to pytest. If they name files or folders, only those run.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

from scripts import HOME
from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import option, rest
from scripts.template import record

_OF_A_FORK = ("tests/app", "tests/test_workflows.py")


class Options(options.Options, frozen=True, kw_only=True):
    all: Annotated[bool, option("--all", help="run the whole suite")] = False
    pytest: Annotated[
        tuple[str, ...], rest("[--all] [pytest's arguments, for example: tests/app -k page]")
    ] = ()


def run(options: Options, call: Call) -> int:
    chosen: list[str] = []
    if not options.all and not any(_is_path(word) for word in options.pytest):
        chosen, why = _choose()
        call.progress.line(why)
    command = [sys.executable, "-m", "pytest", *chosen, *options.pytest]
    return subprocess.run(command, cwd=HOME, check=False).returncode


def _is_path(argument: str) -> bool:
    return not argument.startswith("-") and (HOME / argument.partition("::")[0]).exists()


def _choose() -> tuple[list[str], str]:
    """Return the tests to run (none: the whole suite), and the reason."""
    recorded = record.read(HOME)
    if recorded is None:
        return [], f"the whole suite: without {record.FILE} this is Shipway's own repository"
    if not record.is_unchanged(HOME, recorded):
        return [], f"the whole suite: Shipway's files are not those of version {recorded.version}"
    chosen = [name for name in _OF_A_FORK if (HOME / name).exists()]
    return chosen, f"this fork's tests: {', '.join(chosen)} (--all: Shipway's own suite as well)"
