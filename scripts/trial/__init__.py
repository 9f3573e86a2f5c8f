"""Check that the last commit can be delivered, on a scratch local Cloud Run.

Delivers the commit that it is based on, then the commit itself through its whole rollout, and rolls
it back. If the base cannot be delivered, tries the commit alone. Deletes everything afterwards.
With several services, tries those that are named, or those that the commit touches since its base,
with the services that they call.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import Bake, Format, option
from scripts.command.progress import Progress
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.config import pipelines, relations
from scripts.config.relations import Relations
from scripts.errors import ShipError, UsageError
from scripts.image import docker_command
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.several.touched import touched
from scripts.trial.steps import Row, Trial


class Options(options.Options, frozen=True, kw_only=True):
    services: Annotated[
        tuple[str, ...],
        option(
            metavar="SERVICE",
            help="the services to try (default: those that the commit touches since its base)",
        ),
    ] = ()
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
            builder=builder, runtime=runtime, bake=options.bake,
        )  # fmt: skip
        trial.prepare()
        related = relations.read(trial.files)
        tried = _tried(call, trial.files, head, onto, options.services)
        order = related.in_order({*tried, *_called(tried, related)})
        try:
            stopped = trial.play(onto, order, tried, related) if tried else None
        finally:
            # A second Ctrl-C must not stop the cleanup.
            _ignore_signals()
            trial.close()
    call.show(_result(head, onto, builder, trial.rows, stopped), options.format)
    if stopped:
        raise stopped
    return 0


def _tried(
    call: Call, files: Path, head: Commit, onto: Commit | None, asked: Sequence[str]
) -> list[str]:
    """Return the services to try.

    Raises:
        UsageError: a name is unknown, or files of a service are wrong.
    """
    env = pipelines.DEFAULT_ENV
    known = pipelines.having(files, env)
    if asked or len(known) < 2 or onto is None:
        names: list[str | None] = [*dict.fromkeys(asked)] or [*known] or [None]
        return [pipelines.load(files, name, env).service for name in names]
    found = touched(call, head, since=onto.sha, env=env, timeout="60s")
    for name, why in found.why.items():
        call.progress.line(f"{name}: {why} changed")
    return [pipelines.load(files, name, env).service for name in found.names]


def _called(names: Sequence[str], related: Relations) -> set[str]:
    """Return the services that some services call, themselves or through others."""
    callees = {callee for name in names for callee in related.callees(name)}
    return callees | _called([*callees], related) if callees else set()


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
    if not rows:
        would = f"{head.short} touches no service: nothing to try"
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
