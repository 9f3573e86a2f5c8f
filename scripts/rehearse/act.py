"""Run a workflow with act, on this machine itself, and tell what it does as it does it.

act: https://nektosact.com. Its `-self-hosted` platform runs each step here, in no container.
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
    """How a job of the rehearsal ended, and the step that failed, if one did."""

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
    """Run a workflow's copy.

    Args:
        workflow: the file as it is.
        copy: the copy of it that act reads.
        clone: the repository that its jobs check out.
        event: the event's JSON file.
        environment: environment variables of every step.
        variables: the repository's GitHub variables.
        actions: what `local` says.
        cache: where act keeps what it fetches and the folders that jobs work in.

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
    teller = _Teller()
    with process:
        assert process.stdout
        try:
            for line in process.stdout:
                teller.hear(line)
        except BaseException:
            process.terminate()
            raise
    if teller.unfetched or not teller.results:
        raise Failed(
            "act could not fetch the actions of others from GitHub"
            if teller.unfetched
            else "act did not run the workflow",
            "with no way to github.com, name checked-out actions: --actions FOLDER",
            evidence=teller.unfetched or teller.unread[-20:],
        )
    return [
        JobEnd(
            id=job.id,
            result=teller.results.get(job.id, "skipped"),
            failed_step=teller.failed.get(job.id, ""),
        )
        for job in workflow.jobs
    ]


def _program() -> Path:
    found = Path(sysconfig.get_path("scripts")) / "act"
    if not found.is_file():
        raise UsageError(
            f"act is not installed in {sys.prefix}",
            "unset SHIPWAY_VENV, or install what requirements/dev.txt names there",
        )
    return found


def local(used: Mapping[str, str], folder: Path | None) -> list[str]:
    """act's words for actions that need not be fetched.

    Args:
        used: OWNER/NAME -> commit.
        folder: holds them as OWNER/NAME; None where act is to fetch them.

    Raises:
        UsageError: one of them is not there.
    """
    if folder is None:
        return []
    words = []
    for name, commit in sorted(used.items()):
        if not any((folder / name / f"action.{end}").is_file() for end in ("yml", "yaml")):
            raise UsageError(
                f"--actions {folder}: no {name} there",
                f"git clone https://github.com/{name} {folder / name}"
                f" && git -C {folder / name} checkout {commit}",
            )
        words += ["--local-repository", f"{name}@{commit}={(folder / name).absolute()}"]
    return words


class _Teller:
    """Hears act's entries, one JSON document a line, and tells them as GitHub's log would."""

    def __init__(self) -> None:
        self.results: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.unread: list[str] = []
        self.unfetched: list[str] = []
        self._last = ""

    def hear(self, line: str) -> None:
        """One line of act's output."""
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            self.unread.append(line.rstrip())
            return
        job, step, said = entry.get("jobID"), entry.get("step"), str(entry.get("msg", "")).rstrip()
        if not job:
            if entry.get("level") in ("error", "fatal"):
                self.unread.append(said)
            return
        if "jobResult" in entry:
            self.results[job] = entry["jobResult"]
            self._say(f"{job}: {entry['jobResult']}")
        elif entry.get("raw_output"):
            self._quote(job, said)
        elif entry.get("command") in ("error", "warning", "notice"):
            self._quote(job, f"{entry['command']}: {entry.get('arg', '')}")
        elif step in _OWN_STEPS:
            pass
        elif entry.get("stage") == "Main" and said.startswith("⭐"):
            self._say(f"{job} / {step}")
        elif entry.get("stepResult") == "failure":
            self.failed.setdefault(job, str(step))
        elif entry.get("level") == "error" and said.startswith("Unable to clone "):
            self.unfetched.append(said)
        elif entry.get("level") == "error":
            self._quote(job, said)

    def _quote(self, job: str, text: str) -> None:
        """What a job says; jobs may talk at the same time."""
        for line in text.splitlines():
            self._say(f"{job} | {line}")

    def _say(self, text: str) -> None:
        # A step that is an action made of steps has its name told twice.
        if text != self._last:
            print(text, file=sys.stderr, flush=True)
        self._last = text
