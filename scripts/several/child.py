"""One process of `./ship VERB SERVICE`, among others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scripts import HOME
from scripts.command import github, together
from scripts.command.alive import VARIABLE
from scripts.errors import NothingToDo

NOT_TRIED = "not tried"
_WORDS = {0: "done", 1: "failed", 2: "not valid", 3: "refused", 130: "interrupted"}


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a verb ended for one service.

    Attributes:
        code: its exit code.
        word: the same in a word or two.
        document: its JSON document.
        outputs: its outputs for a job.
        page: its run page, in Markdown.
        seconds: how long it took.
        because: why it was not tried; "" if it was.
        idle: whether there was nothing to do, which is no failure.
    """

    code: int
    word: str
    document: dict[str, Any]
    outputs: dict[str, str] = {}
    page: str = ""
    seconds: float = 0.0
    because: str = ""
    idle: bool = False

    @classmethod
    def not_tried(cls, why: str) -> Ended:
        """Make the end of what never began."""
        error = {"kind": NOT_TRIED, "message": f"{NOT_TRIED}: {why}", "hint": None}
        code = 130 if why == _WORDS[130] else 1
        return cls(
            code=code,
            word=NOT_TRIED,
            because=why,
            document={"error": {**error, "evidence": [], "exit_code": code}},
        )


class Child:
    """A running process.

    Args:
        name: the service.
        words: the verb and its arguments.
        root: the folder to start in.
        folder: for the files that it writes.
        alive: the end of a pipe that closes when this process is gone.
        names: the services of the command.

    Attributes:
        said: its standard error.
    """

    def __init__(
        self,
        name: str,
        words: list[str],
        root: Path,
        folder: Path,
        alive: int,
        names: Sequence[str],
    ) -> None:
        self.name = name
        self._started = time.monotonic()
        self._half = b""
        self._open = True
        self._result = folder / f"{name}.json"
        self._page = folder / f"{name}.md"
        self._outputs = folder / f"{name}.outputs"
        env = {
            **os.environ,
            VARIABLE: str(alive),
            together.VARIABLE: ",".join(names),
            "GITHUB_OUTPUT": "",
            "GITHUB_STEP_SUMMARY": str(self._page) if github.has_run_page() else "",
            "SHIPWAY_OUTPUTS": str(self._outputs),
        }
        with self._result.open("wb") as result:
            # A group of its own: Ctrl-C reaches it once, through this process.
            self._process = subprocess.Popen(
                [sys.executable, str(HOME / "scripts"), *words],
                cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=result,
                stderr=subprocess.PIPE, pass_fds=[alive], process_group=0,
            )  # fmt: skip
        assert self._process.stderr is not None
        self.said = self._process.stderr
        os.set_blocking(self.said.fileno(), False)

    def lines(self) -> list[str]:
        """Return the lines that it has printed since, as far as they are complete."""
        try:
            piece = self.said.read()
        except BlockingIOError:
            piece = None
        if piece is None:
            return []
        self._open = bool(piece)
        *lines, self._half = (self._half + piece).split(b"\n")
        if not self._open and self._half:
            lines, self._half = [*lines, self._half], b""
        found = [line.decode(errors="replace") for line in lines]
        # The driver reports all problems to the job at its end.
        return [line for line in found if line and not line.startswith("::error ")]

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None

    def end(self) -> Ended:
        """Return how it ended; only when it has."""
        code = self._process.wait()
        self.said.close()
        try:
            document = json.loads(self._result.read_bytes())
        except ValueError:
            document = {"error": self._silent(code)}
        seconds = time.monotonic() - self._started
        document_code = code if code in _WORDS else 1
        word = _WORDS[document_code]
        if document.get("outcome") == "overtaken":
            word = "steps aside"
        if idle := (document.get("error") or {}).get("kind") == NothingToDo.kind:
            document_code, word = 0, NothingToDo.kind
        return Ended(
            code=document_code,
            idle=idle,
            word=word,
            document=document,
            outputs={
                file.name: file.read_text(encoding="utf-8")
                for file in (self._outputs.iterdir() if self._outputs.is_dir() else ())
            },
            page=self._page.read_text(encoding="utf-8") if self._page.is_file() else "",
            seconds=seconds,
        )

    def _silent(self, code: int) -> dict[str, Any]:
        """Return the error of a process that ended without a result."""
        by = f"signal {-code}" if code < 0 else f"exit code {code}"
        return {
            "kind": "failed",
            "message": f"its process ended with {by}, and without a result",
            "hint": f"To see what is live: ./ship status {self.name}",
            "evidence": [],
            "exit_code": 1,
        }
