"""Check that the last commit can be delivered, on a scratch local Cloud Run.

Delivers the commit that it is based on, then the commit itself through its whole rollout, and rolls
it back. If the base cannot be delivered, tries the commit alone. Deletes everything afterwards.
"""

from __future__ import annotations

import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import Bake, Format, Service, option
from scripts.command.progress import Progress
from scripts.command.results import Result, Table
from scripts.errors import ShipError, UsageError
from scripts.image import docker_command
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.trial.steps import Row, Trial


class Options(options.Options, frozen=True, kw_only=True):
    service: Service = None
    onto: Annotated[
        str | None,
        option(
            "--onto",
            metavar="COMMIT",
            help="the commit to deliver first (default: the merge base with origin/main,"
            " or its first parent)",
        ),
    ] = None
    builder: Annotated[
        Literal["docker", "cloud-build"] | None,
        option("--builder", help="default: docker if an engine answers, else cloud-build"),
    ] = None
    runtime: Annotated[
        Literal["docker", "process"] | None,
        option("--runtime", help="default: docker with --builder docker, else process"),
    ] = None
    bake: Bake = None
    format: Format = "table"


def run(options: Options, call: Call) -> int:
    root, progress = call.root, call.progress
    head = git.commit(root)
    onto = _onto(root, head, options.onto, progress)
    builder = options.builder or ("docker" if docker_command.engine_answers() else "cloud-build")
    runtime = options.runtime or ("docker" if builder == "docker" else "process")
    differ = git.uncommitted(root)
    if differ:
        progress.line(
            f"note: {differ} uncommitted change{'s are' if differ > 1 else ' is'} left out:"
            f" the trial is about commit {head.short}"
        )
    with TemporaryDirectory(prefix="shipway-trial-") as folder:
        trial = Trial(
            root, Path(folder), head, progress,
            service=options.service, builder=builder, runtime=runtime, bake=options.bake,
        )  # fmt: skip
        try:
            stopped = trial.play(onto)
        finally:
            # A second Ctrl-C must not stop the cleanup.
            _ignore_signals()
            trial.close()
    call.show(_result(head, onto, builder, trial.rows, stopped), options.format)
    if stopped:
        raise stopped
    return 0


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _onto(root: Path, head: Commit, asked: str | None, progress: Progress) -> Commit | None:
    """Find the commit to deliver first; None if there is none, which is printed.

    Raises:
        UsageError: `asked` is not a commit, or not one that `head` comes after.
    """
    if asked is not None:
        onto = git.commit(root, asked, option="--onto")
        if onto.sha == head.sha or git.is_newer(root, onto.sha, head.sha):
            raise UsageError(f"--onto {asked}: {head.short} does not come after it")
        return onto
    found = git.merge_base(root, "origin/main", head.sha)
    if found in (None, head.sha):
        found = git.parent(root, head.sha)
    if found is None:
        progress.line(f"note: no commit before {head.short} is known, so it is tried alone")
        return None
    return git.commit(root, found)


def _result(
    head: Commit, onto: Commit | None, builder: str, rows: list[Row], stopped: ShipError | None
) -> Result:
    would = f"{head.short} would {'not deliver' if stopped else 'deliver'}"
    return Result(
        data={
            "commit": head.sha,
            "onto": onto.sha if onto else "",
            "builder": builder,
            "passed": stopped is None,
            "steps": [
                {"step": r.step, "passed": r.passed, "result": r.result, "seconds": r.seconds}
                for r in rows
            ],
        },
        table=Table(
            columns=["STEP", "RESULT", "TOOK"],
            rows=[[row.step, row.result, f"{row.seconds:.1f} s"] for row in rows],
            notes=[would],
        ),
    )
