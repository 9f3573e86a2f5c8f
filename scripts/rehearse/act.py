"""Run a workflow with act on this machine, and print its progress.

act: https://nektosact.com. Its `-self-hosted` platform runs each step here, without a container.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from scripts.errors import Failed, UsageError
from scripts.machine import git
from scripts.rehearse.workflow import Workflow

_OWN_STEPS = ("Set up job", "Complete job")
_RUNNERS = ("ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04")


class JobEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, and the step that failed, if any."""

    id: str
    result: str
    """"success", "failure", or "skipped"."""
    failed_step: str = ""


def run(
    workflow: Workflow,
    copy: Path,
    clone: Path,
    event: Path,
    *,
    environment: Mapping[str, str],
    variables: Mapping[str, str],
    actions: list[str],
    cache: Path,
) -> list[JobEnd]:
    """Run the copy of a workflow.

    Args:
        workflow: The workflow.
        copy: The copy of its file that act reads.
        clone: The repository that its jobs check out.
        event: The event's JSON file.
        environment: Environment variables of every step.
        variables: The repository's GitHub variables.
        actions: The result of `local`.
        cache: Where act keeps what it fetches, and the jobs' working folders.

    Returns:
        How each job ended, in the file's order.

    Raises:
        Failed: act did not run it.
    """
    words = [
        *(str(_program()), workflow.event, "--json", "--pull=false"),
        *("--actor", git.actor()),
        *("--directory", str(clone), "--workflows", str(copy), "--eventpath", str(event)),
        *("--action-cache-path", str(cache / "actions")),
        *(word for name in _RUNNERS for word in ("--platform", f"{name}=-self-hosted")),
        *(word for k, v in variables.items() for word in ("--var", f"{k}={v}")),
        *(word for k, v in environment.items() for word in ("--env", f"{k}={v}")),
        *actions,
    ]
    process = subprocess.Popen(
        words,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    log = _Log(workflow.log_names)
    with process:
        assert process.stdout
        try:
            for line in process.stdout:
                log.read(line)
        except BaseException:
            process.terminate()
            raise
    if log.unfetched or not log.results:
        raise Failed(
            "act could not fetch third-party actions from GitHub"
            if log.unfetched
            else "act did not run the workflow",
            "without access to github.com: --actions tests/actions takes Shipway's stand-ins,"
            " --actions FOLDER your own checkouts",
            evidence=log.unfetched or log.unread[-20:],
        )
    return [
        JobEnd(id=job, result=log.results.get(job, "skipped"), failed_step=log.failed.get(job, ""))
        for job in workflow.data["jobs"]
    ]


def _program() -> Path:
    found = Path(sysconfig.get_path("scripts")) / "act"
    if not found.is_file():
        raise UsageError(
            f"act is not installed in {sys.prefix}",
            "unset SHIPWAY_VENV, or install requirements/dev.txt there",
        )
    return found


def local(used: Mapping[str, str], folder: Path | None) -> list[str]:
    """Return act's arguments for actions that it need not fetch.

    Args:
        used: OWNER/NAME -> commit.
        folder: The folder that has them as OWNER/NAME; None if act fetches them.

    Raises:
        UsageError: the folder lacks one of them.
    """
    if folder is None:
        return []
    words = []
    for name, commit in sorted(used.items()):
        if not any((folder / name / f"action.{end}").is_file() for end in ("yml", "yaml")):
            raise UsageError(
                f"--actions {folder}: {name} is not in this folder",
                f"git clone https://github.com/{name} {folder / name}"
                f" && git -C {folder / name} checkout {commit}",
            )
        words += ["--local-repository", f"{name}@{commit}={(folder / name).absolute()}"]
    return words


class _Log:
    """Reads act's log, one JSON document a line, and prints it like GitHub's log.

    Args:
        names: The name that a job has in the log -> its id.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.results: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.unread: list[str] = []
        self.unfetched: list[str] = []
        self._names = names
        self._steps: dict[str, str] = {}

    def read(self, line: str) -> None:
        """Read one line of act's output."""
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            self.unread.append(line.rstrip())
            return
        text, step = str(entry.get("msg", "")).rstrip(), str(entry.get("step", ""))
        job = self._names.get(str(entry.get("job", "")).rstrip())  # act pads it
        if not job:
            if entry.get("level") in ("error", "fatal"):
                self.unread.append(text)
        elif "jobResult" in entry:
            # A file that the job calls may have several jobs.
            if self.results.get(job) != "failure":
                self.results[job] = entry["jobResult"]
            self._print(f"{job}: {entry['jobResult']}")
        else:
            if entry.get("stage") == "Main" and self._steps.get(job) != step:
                self._steps[job] = step
                self._print(f"{job} / {step}")
            self._read_step(job, step, entry, text)

    def _read_step(self, job: str, step: str, entry: dict[str, Any], text: str) -> None:
        if entry.get("raw_output"):
            self._quote(job, text)
        elif entry.get("command") in ("error", "warning", "notice"):
            self._quote(job, f"{entry['command']}: {entry.get('arg', '')}")
        elif step in _OWN_STEPS:
            pass
        elif entry.get("stepResult") == "failure":
            self.failed.setdefault(job, step)
        elif entry.get("level") == "error":
            # act marks this failure with its text alone.
            if text.startswith("Unable to clone "):
                self.unfetched.append(text)
            else:
                self._quote(job, text)

    def _quote(self, job: str, text: str) -> None:
        """Print the output of a job with the job's name: jobs may run at the same time."""
        for line in text.splitlines():
            self._print(f"{job} | {line}")

    @staticmethod
    def _print(text: str) -> None:
        print(text, file=sys.stderr, flush=True)
