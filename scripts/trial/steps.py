"""The steps of a trial: commands of this program, as they are typed, in a scratch clone."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from scripts.command.progress import Progress
from scripts.command.words import split
from scripts.config import pipelines
from scripts.errors import Failed, ShipError, UsageError
from scripts.machine import scratch
from scripts.machine.git import Commit

# A trial's commands have no run page, no output and no annotation: the trial itself does.
_NOT_HANDED_ON = (
    "GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_REPOSITORY",
)  # fmt: skip
_BAD_USAGE = 2


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One step: what it was, whether it went well, how it ended, and how long it took."""

    step: str
    passed: bool
    result: str
    seconds: float


class Trial:
    """One commit's trial.

    Args:
        root: the repository, which is only read.
        folder: a scratch folder.
        head: the commit that is tried.
        progress: where it is told.
        service: its name; None where there is only one.
        builder: "docker" or "pack".
        runtime: "docker" or "process".
        bake: how long each step is watched; None for what the environment says.
    """

    def __init__(
        self, root: Path, folder: Path, head: Commit, progress: Progress, *,
        service: str | None, builder: str, runtime: str, bake: str | None,
    ) -> None:  # fmt: skip
        self.rows: list[Row] = []
        self._root = root
        self._folder = folder
        self._head = head
        self._progress = progress
        self._builder = builder
        self._runtime = runtime
        self._bake = ["--bake", bake] if bake else []
        self._service = service
        self._clone = folder / "clone"
        self._files = self._clone
        self._stack = ExitStack()
        self._cloud_runs = 0
        self._url = ""

    def play(self, onto: Commit | None) -> ShipError | None:
        """Every step in order.

        Args:
            onto: what is delivered first; None for nothing.

        Returns:
            Why it stopped; None where all went well.

        Raises:
            ShipError: it could not begin.
        """
        self._prepare()
        if onto and not self._base(onto):
            # What is broken already must not keep the commit from mending it: a fresh start.
            self.close()
            onto = None
        if not self._url:
            self._start()
        try:
            built = self._step("build", "build", self._head, "--builder", self._builder)
            self._tell(built, str(built["digest"])[:19])
            done = self._step(
                "deliver", "deliver", self._head, "--digest", str(built["digest"]), *self._bake
            )
            self._tell(done, "; ".join(split(r["after"]) for r in done["regions"]))
            if onto is None:
                self._row("roll back", True, "left out: nothing was delivered before it", 0.0)
                return None
            back = self._step("roll back", "rollback", None, "--reason", "a trial")
            self._tell(back, "; ".join(split(r["after"]) for r in back["regions"]))
        except _StepFailed as failed:
            self._row(failed.step, False, f"FAILED: {failed.error.message}", failed.seconds)
            return failed.error
        return None

    def close(self) -> None:
        """End what runs, and forget what it made."""
        self._stack.close()
        self._url = ""

    def _prepare(self) -> None:
        """A clone at the commit; what its files say is checked before anything is started."""
        (self._folder / "tmp").mkdir()
        # What holds pipelines/ may be a folder of the repository.
        top = scratch.git("rev-parse", "--show-toplevel", cwd=self._root)
        self._files = self._clone / scratch.git("rev-parse", "--show-prefix", cwd=self._root)
        scratch.git("clone", "--quiet", "--shared", "--no-checkout", top, str(self._clone))
        scratch.git("checkout", "--quiet", "--detach", self._head.sha, cwd=self._clone)
        self._service = pipelines.load(self._files, self._service, pipelines.DEFAULT_ENV).service

    def _start(self) -> None:
        with self._progress.step("start", "a scratch local Cloud Run") as step:
            self._cloud_runs += 1
            state = self._folder / f"cloud-run-{self._cloud_runs}"
            started = scratch.local_cloud_run(state, runtime=self._runtime)
            self._url = self._stack.enter_context(started).url
            step.done(f"a scratch local Cloud Run, {self._runtime} runtime")

    def _base(self, onto: Commit) -> bool:
        """Deliver what the commit comes after; whether that could be done."""
        self._start()
        try:
            done = self._step("base", "deliver", onto, "--builder", self._builder)
        except _StepFailed as failed:
            said = f"cannot be delivered: {failed.error.message}; {self._head.short} goes alone"
            self._row(failed.step, False, said, failed.seconds)
            self._progress.line(f"note: {failed.step} {said}")
            return False
        self._tell(done, "; ".join(split(r["after"]) for r in done["regions"]))
        return True

    def _step(self, name: str, verb: str, commit: Commit | None, *arguments: str) -> Any:
        """Run one command, showing what it tells.

        Returns:
            Its JSON document, with the row's "step" and "took".

        Raises:
            _StepFailed: its exit code is not 0.
        """
        step = f"{name} {commit.short}" if commit else name
        self._progress.line(f"{step}:")
        started = time.monotonic()
        of = ["--commit", commit.sha] if commit else []
        assert self._service
        told: list[str] = []
        with scratch.ship(
            verb, self._service, *of, *arguments, "--format", "json", "--yes",
            cwd=self._files, url=self._url, stderr=subprocess.PIPE,
            TMPDIR=str(self._folder / "tmp"), **dict.fromkeys(_NOT_HANDED_ON, ""),
        ) as process:  # fmt: skip
            assert process.stdout
            assert process.stderr
            for line in process.stderr:
                # The error itself is told once: at the end, by the trial.
                if told or line.startswith("ship: "):
                    told.append(line.rstrip("\n"))
                else:
                    self._progress.line(f"  {line.rstrip()}")
            document = process.stdout.read()
            code = process.wait()
        seconds = round(time.monotonic() - started, 2)
        if code:
            raise _StepFailed(step, _error(code, told), seconds)
        return {**json.loads(document), "step": step, "took": seconds}

    def _tell(self, done: Any, result: str) -> None:
        self._row(done["step"], True, result, done["took"])

    def _row(self, step: str, passed: bool, result: str, seconds: float) -> None:
        self.rows.append(Row(step=step, passed=passed, result=result, seconds=seconds))


class _StepFailed(Exception):
    """A command of the trial that ended with another exit code than 0."""

    def __init__(self, step: str, error: ShipError, seconds: float) -> None:
        super().__init__(step)
        self.step = step
        self.error = error
        self.seconds = seconds


def _error(code: int, told: list[str]) -> ShipError:
    """The error that a command told: "ship: MESSAGE", "  | EVIDENCE" …, "  -> HINT"."""
    message = " ".join(line for line in told if not line.startswith(("  | ", "  -> ")))
    message = message.removeprefix("ship: ") or f"it ended with exit code {code}"
    evidence = [line[4:] for line in told if line.startswith("  | ")]
    kind = UsageError if code == _BAD_USAGE else Failed
    return kind(message, "mend it and commit, then: ./ship trial", evidence=evidence)
