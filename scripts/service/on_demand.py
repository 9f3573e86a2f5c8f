"""Start the local Cloud Run when a command needs it."""

from __future__ import annotations

import os
import subprocess
import sys

from scripts import HOME
from scripts.config import running
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed
from scripts.machine.venv import INSTALLS


def bring_up(pipeline: Pipeline, *, yes: bool) -> None:
    """Start the local Cloud Run in the background if the environment uses it and it is not up.

    Without `yes`, ask; where no one can answer, it is an error. In CI it is not started: no one
    would end it.

    Args:
        pipeline: the files.
        yes: whether the command line agrees in advance.

    Raises:
        NotUp: no one agreed.
        Failed: it does not start.
    """
    if not pipeline.uses_up or running.settled(pipeline.checkout):
        return
    if os.environ.get("CI") or not (yes or _agrees()):
        raise running.NotUp
    # Through the program that installs packages: the local Cloud Run needs more of them.
    said: list[str] = []
    with subprocess.Popen(
        [str(HOME / "ship"), "up", "--background"],
        cwd=pipeline.checkout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as up:  # fmt: skip
        assert up.stdout is not None
        assert up.stderr is not None
        for line in up.stderr:
            said.append(line.rstrip())
            if line.startswith(INSTALLS):  # which takes a while: at once
                print(line, end="", file=sys.stderr, flush=True)
        address = up.stdout.read().strip()
    if up.returncode:
        raise Failed("the local Cloud Run did not start", evidence=said[-10:])
    print(
        f"started the local Cloud Run at {address}; its output goes to {running.LOG};"
        " to end it: ./ship up --stop",
        file=sys.stderr,
    )


def _agrees() -> bool:
    """Ask on a terminal; where there is none, no one agrees."""
    if not sys.stdin.isatty():
        return False
    question = "The local Cloud Run is not up. Start it in the background? [Y/n] "
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    return answer.endswith("\n") and answer.strip().lower() in ("", "y", "yes")
