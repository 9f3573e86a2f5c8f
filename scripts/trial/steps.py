"""The steps of a trial: Shipway's own commands, run in a scratch clone."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from scripts.command.progress import Progress
from scripts.command.words import split
from scripts.config.relations import Relations
from scripts.errors import Failed, ShipError, UsageError
from scripts.machine import scratch
from scripts.machine.git import Commit
from scripts.service import local_secrets

# The trial itself writes the run page, outputs and annotations; its commands must not.
_NOT_HANDED_ON = (
    "GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_REPOSITORY",
)  # fmt: skip


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One step: its name, whether it passed, its result, and how many seconds it took."""

    step: str
    passed: bool
    result: str
    seconds: float


class Trial:
    """One commit's trial.

    Args:
        root: the repository, which is only read.
        folder: a scratch folder.
        head: the commit to try.
        progress: where progress is printed.
        builder: "docker" or "cloud-build".
        runtime: "docker" or "process".
        bake: how long each step bakes; None for the environment's setting.
    """

    def __init__(
        self, root: Path, folder: Path, head: Commit, progress: Progress, *,
        builder: str, runtime: str, bake: str | None,
    ) -> None:  # fmt: skip
        self.rows: list[Row] = []
        self._root = root
        self._folder = folder
        self._head = head
        self._progress = progress
        self._builder = builder
        self._runtime = runtime
        self._bake = ["--bake", bake] if bake else []
        self._clone = folder / "clone"
        self.files = self._clone
        self._several = False
        self._stack = ExitStack()
        self._cloud_runs = 0
        self._url = ""

    def play(
        self, onto: Commit | None, order: Sequence[str], tried: Collection[str], related: Relations
    ) -> ShipError | None:
        """Take every step in order. A service that fails stops only those that call it.

        Args:
            onto: the commit to deliver first; None for none.
            order: the services, callees before their callers.
            tried: those of them that are tried. The others are there to be called.
            related: how they relate.

        Returns:
            The first error; None if every step passed.

        Raises:
            ShipError: the trial could not start.
        """
        self._several = len(order) > 1
        based = self._bases(onto, order) if onto else set()
        if not self._url:
            self._start()
        failed: dict[str, ShipError] = {}
        for service in order:
            if stops := [callee for callee in related.callees(service) if callee in failed]:
                failed[service] = failed[stops[0]]
                step = self._named("deliver", service, self._head)
                self._row(step, False, f"left out: {stops[0]}, which it calls, failed", 0.0)
                continue
            try:
                if service in tried:
                    self._deliver(service)
                elif service not in based:
                    words = ("--builder", self._builder)
                    self._moved(self._step("deliver", service, "deliver", self._head, *words))
            except _StepFailed as stopped:
                self._fail(stopped)
                failed[service] = stopped.error
        for service in reversed(order):
            if service not in tried or service in failed:
                continue
            if service not in based:
                step = self._named("roll back", service)
                self._row(step, True, "left out: no commit was delivered before it", 0.0)
                continue
            try:
                reason = ("--reason", "a trial")
                self._moved(self._step("roll back", service, "rollback", None, *reason))
            except _StepFailed as stopped:
                self._fail(stopped)
                failed[service] = stopped.error
        return next(iter(failed.values()), None)

    def _deliver(self, service: str) -> None:
        built = self._step("build", service, "build", self._head, "--builder", self._builder)
        self._passed(built, str(built["digest"])[:19])
        words = ("--digest", str(built["digest"]), *self._bake)
        self._moved(self._step("deliver", service, "deliver", self._head, *words))

    def close(self) -> None:
        """Stop the local Cloud Run and delete its images."""
        self._stack.close()
        self._url = ""

    def prepare(self) -> None:
        """Clone the commit into `files`, before anything starts."""
        (self._folder / "tmp").mkdir()
        # pipelines/ may be in a folder of the repository.
        top = scratch.git("rev-parse", "--show-toplevel", cwd=self._root)
        self.files = self._clone / scratch.git("rev-parse", "--show-prefix", cwd=self._root)
        scratch.git("clone", "--quiet", "--shared", "--no-checkout", top, str(self._clone))
        scratch.git("checkout", "--quiet", "--detach", self._head.sha, cwd=self._clone)
        if (secrets := self._root / local_secrets.FILE).is_file():
            (self.files / local_secrets.FILE).symlink_to(secrets.resolve())

    def _start(self) -> None:
        with self._progress.step("start", "a scratch local Cloud Run") as step:
            self._cloud_runs += 1
            state = self._folder / f"cloud-run-{self._cloud_runs}"
            started = scratch.local_cloud_run(state, runtime=self._runtime)
            self._url = self._stack.enter_context(started).url
            step.done(f"a scratch local Cloud Run, {self._runtime} runtime")

    def _bases(self, onto: Commit, order: Sequence[str]) -> set[str]:
        """Deliver the commit's base; return the services for which that worked."""
        self._start()
        based = set()
        for service in order:
            try:
                words = ("--builder", self._builder)
                self._moved(self._step("base", service, "deliver", onto, *words))
                based.add(service)
            except _StepFailed as stopped:
                problem = (
                    f"cannot be delivered: {stopped.error.message}; {self._head.short} is tried"
                    " alone"
                )
                self._row(stopped.step, False, problem, stopped.seconds)
                self._progress.line(f"note: {stopped.step} {problem}")
                if not isinstance(stopped.error, UsageError):
                    # The commit may be the fix for a broken base: start afresh without it.
                    self.close()
                    return set()
        return based

    def _named(self, name: str, service: str, commit: Commit | None = None) -> str:
        """Return a step's name, with its service if there are several."""
        words = [name, *([service] if self._several else []), *([commit.short] if commit else [])]
        return " ".join(words)

    def _step(
        self, name: str, service: str, verb: str, commit: Commit | None, *arguments: str
    ) -> Any:
        """Run one command and show its progress.

        Returns:
            Its JSON document, with the row's "step" and "took".

        Raises:
            _StepFailed: its exit code is not 0.
        """
        step = self._named(name, service, commit)
        self._progress.line(f"{step}:")
        started = time.monotonic()
        of = ["--commit", commit.sha] if commit else []
        with scratch.ship(
            verb, service, *of, *arguments, "--format", "json", "--yes",
            cwd=self.files, url=self._url, stderr=subprocess.PIPE,
            TMPDIR=str(self._folder / "tmp"), **dict.fromkeys(_NOT_HANDED_ON, ""),
        ) as process:  # fmt: skip
            assert process.stdout
            assert process.stderr
            is_progress = True
            for line in process.stderr:
                # The text of an error is not shown here: the trial shows the error at its end.
                is_progress = is_progress and not line.startswith("ship: ")
                if is_progress:
                    self._progress.line(f"  {line.rstrip()}")
            document = json.loads(process.stdout.read() or "{}")
            code = process.wait()
        seconds = round(time.monotonic() - started, 2)
        if code:
            raise _StepFailed(step, _error(code, document.get("error") or {}), seconds)
        return {**document, "step": step, "took": seconds}

    def _moved(self, done: Any) -> None:
        """Add the row of a step that moved traffic."""
        self._passed(done, "; ".join(split(r["after"]) for r in done["regions"]))

    def _fail(self, stopped: _StepFailed) -> None:
        self._row(stopped.step, False, f"FAILED: {stopped.error.message}", stopped.seconds)

    def _passed(self, done: Any, result: str) -> None:
        self._row(done["step"], True, result, done["took"])

    def _row(self, step: str, passed: bool, result: str, seconds: float) -> None:
        self.rows.append(Row(step=step, passed=passed, result=result, seconds=seconds))


class _StepFailed(Exception):
    """A command of the trial failed."""

    def __init__(self, step: str, error: ShipError, seconds: float) -> None:
        super().__init__(step)
        self.step = step
        self.error = error
        self.seconds = seconds


def _error(code: int, error: dict[str, Any]) -> ShipError:
    """Return the trial's error for a command's: its "error" of `--format json`, {} without one."""
    kind = UsageError if error.get("kind") == UsageError.kind else Failed
    return kind(
        error.get("message") or f"exit code {code}",
        "fix it and commit, then: ./ship trial",
        evidence=error.get("evidence"),
    )
