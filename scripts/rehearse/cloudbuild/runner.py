"""Run the steps of a build in order, and in parallel where no step waits for another.

Source: https://cloud.google.com/build/docs/configuring-builds/configure-build-step-order
"""

from __future__ import annotations

import threading
import time
from typing import Literal

import msgspec

from scripts.command.progress import Progress
from scripts.rehearse.cloudbuild.build import Build
from scripts.rehearse.cloudbuild.place import Place, Running

Status = Literal["SUCCESS", "FAILURE", "TIMEOUT", "CANCELLED", "QUEUED"]
_LOOK_SECONDS = 0.05


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a step ended."""

    title: str
    status: Status
    where: str
    """Where it ran, in human-readable form; "" if it did not run."""
    seconds: float = 0.0
    note: str = ""
    allowed: bool = False
    """Whether the file allows its failure, so that the build continues."""

    @property
    def stops_the_build(self) -> bool:
        """Whether no other step may start or continue."""
        return self.status in ("FAILURE", "TIMEOUT") and not self.allowed


class _Stopped(Exception):
    """Another step has failed, or the build has timed out."""


def run(build: Build, place: Place, progress: Progress) -> list[End]:
    """Run all steps.

    Args:
        build: The build.
        place: Where its steps run.
        progress: Gets each line that a step prints, after the step's name.

    Returns:
        How each step ended, in the file's order.
    """
    return _Run(build, place, progress).ends()


class _Run:
    def __init__(self, build: Build, place: Place, progress: Progress) -> None:
        self.build = build
        self.place = place
        self.progress = progress
        self._ends: list[End | None] = [None] * len(build.steps)
        self._done = [threading.Event() for _ in build.steps]
        self._stop = threading.Event()
        self._deadline = time.monotonic() + build.seconds
        self._lock = threading.Lock()

    def ends(self) -> list[End]:
        threads = [
            threading.Thread(target=self._step, args=(index,), daemon=True)
            for index in range(len(self.build.steps))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK_SECONDS)  # Ctrl-C arrives here
        except BaseException:
            self._stop.set()
            for thread in threads:
                thread.join()
            raise
        return [end for end in self._ends if end]

    def _step(self, index: int) -> None:
        title = self.build.title(index)
        end = End(title=title, status="QUEUED", where="")
        try:
            self._wait(self.build.after(index))
            end = self._run(index, title)
        except _Stopped:
            pass
        except Exception as error:
            self._say(title, f"{type(error).__name__}: {error}")
            end = End(title=title, status="FAILURE", where="", note=str(error))
        finally:
            self._ends[index] = end
            if end.stops_the_build:
                self._stop.set()
            self._done[index].set()

    def _wait(self, before: set[int]) -> None:
        for index in sorted(before):
            while not self._done[index].wait(_LOOK_SECONDS):
                self._check()
        self._check()

    def _check(self) -> None:
        if self._stop.is_set() or time.monotonic() > self._deadline:
            raise _Stopped

    def _run(self, index: int, title: str) -> End:
        step = self.build.steps[index]
        reason = self.place.leaves_out(step)
        if reason:
            self._say(title, f"left out: {reason}")
            return End(title=title, status="SUCCESS", where="", note=f"left out: {reason}")
        started = time.monotonic()
        with self.place.start(step, lambda line: self._say(title, line)) as running:
            self._say(title, f"starts: {running.where}")
            status, code = self._end(running, step.seconds, started)
        took = time.monotonic() - started
        allowed = status == "FAILURE" and (step.allow_failure or code in step.allow_exit_codes)
        note = f"exit code {code}{', allowed' if allowed else ''}" if code else ""
        return End(
            title=title, status=status, where=running.where, seconds=took, note=note,
            allowed=allowed,
        )  # fmt: skip

    def _end(
        self, running: Running, limit: float | None, started: float
    ) -> tuple[Status, int | None]:
        deadline = self._deadline if limit is None else min(self._deadline, started + limit)
        while running.code() is None:
            if self._stop.wait(_LOOK_SECONDS):
                running.kill()
                return "CANCELLED", None
            if time.monotonic() > deadline:
                running.kill()
                return "TIMEOUT", None
        code = running.code()
        return ("FAILURE" if code else "SUCCESS"), code

    def _say(self, title: str, line: str) -> None:
        with self._lock:
            self.progress.line(f"{title}: {line}")
