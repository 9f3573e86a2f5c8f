"""What a verb is given: the files, the regions, the actor, and how to report."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.command import run_page, terminal
from scripts.config import pipelines
from scripts.config.pipelines import Pipeline
from scripts.errors import Refused, ShipError
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.release.changes import Actor
from scripts.release.state import State
from scripts.service.checks import Outcome


class StepTaken(msgspec.Struct, kw_only=True):
    """One step of a rollout: its percentage, what served then, and how long it was watched."""

    percent: int
    shares: str
    bake: float
    """Seconds."""
    ended: bool = False


class Context:
    """One call of a verb.

    Args:
        arguments: the command line, parsed.
        root: the folder that holds pipelines/.
        pipeline: the service's files; read from `root` unless given.
        progress: where progress is told.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        root: Path,
        pipeline: Pipeline | None = None,
        progress: terminal.Progress | None = None,
    ) -> None:
        self.arguments = arguments
        self.root = root
        self.pipeline = pipeline or pipelines.load(root, arguments.service, arguments.env)
        self.progress = progress or terminal.Progress()
        self.dry_run: bool = arguments.dry_run
        self.verb: str = getattr(arguments, "verb", "")
        self.started = time.monotonic()
        # What a summary tells of the way: the image, each region's last checks, the steps taken.
        self.commit: Commit | None = None
        self.image: str | None = None
        self.checked: dict[str, list[Outcome]] = {}
        self.steps: list[StepTaken] = []
        arguments.about = self
        self.google = Google(self.pipeline, dry_run=self.dry_run)
        self.regions = [
            CloudRun(self.google, self.pipeline, region)
            for region in self.pipeline.environment.regions
        ]

    @property
    def where(self) -> str:
        """What to type after a verb to mean this service here."""
        return self.pipeline.where

    @property
    def override(self) -> str | None:
        """The hold that the caller means to override, by name."""
        name: str | None = getattr(self.arguments, "override", None)
        return name

    def actor(self) -> Actor:
        """Who asks, now, and why."""
        why = getattr(self.arguments, "reason", None) or ""
        return Actor(by=git.actor(), at=terminal.now(), why=why)

    def confirm(self, what: str) -> None:
        """Ask once before a change, where the environment wants that and somebody can answer.

        Raises:
            Refused: the answer is not yes.
        """
        wanted = self.pipeline.environment.confirm and not self.dry_run
        if not wanted or self.arguments.yes or not sys.stdin.isatty() or os.environ.get("CI"):
            return  # in CI nobody answers, terminal or not
        print(f"{what}\nGo ahead? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused("not confirmed: nothing was changed", "--yes answers beforehand")


@contextmanager
def at_commit(arguments: argparse.Namespace, root: Path) -> Iterator[tuple[Context, Commit]]:
    """A call on the files of the commit that is delivered, configuration included."""
    commit = git.commit(root, arguments.commit)
    progress = terminal.Progress()
    differ = git.uncommitted(root)
    if differ:
        progress.line(
            f"note: {differ} uncommitted change{'s are' if differ > 1 else ' is'} left out:"
            f" commit {commit.short} is what counts"
        )
    with git.checkout(root, commit) as files:
        pipeline = pipelines.load(files, arguments.service, arguments.env)
        context = Context(arguments, root, pipeline, progress)
        context.commit = commit
        yield context, commit


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the traffic in one region."""

    region: str
    before: State
    after: State


def in_every_region(
    context: Context, act: Callable[[CloudRun], tuple[State, State]]
) -> tuple[list[Move], list[ShipError]]:
    """Do the same in every region that lets it be done: one region's trouble is not another's.

    Args:
        context: the call.
        act: what to do; returns the service before and after.

    Returns:
        What moved, and what went wrong, region by region.

    Raises:
        ShipError: it could be done nowhere.
    """
    moves: list[Move] = []
    errors: list[ShipError] = []
    for region in context.regions:
        try:
            before, after = act(region)
        except ShipError as error:
            errors.append(error)
        else:
            moves.append(Move(region=region.region, before=before, after=after))
    if not moves:
        raise errors[0]
    return moves, errors


def moved(
    context: Context,
    moves: list[Move],
    said: list[str],
    errors: Sequence[ShipError] = (),
    title: str | None = None,
) -> terminal.Result:
    """The result of a traffic change: before and after, per region, and what went wrong.

    Its page has the verb's own title unless another is given.
    """
    rows = []
    for move in moves:
        before, after = move.before.shares, move.after.shares
        for name in sorted({*before, *after}, key=lambda n: (-after.get(n, 0), n)):
            rows.append(
                [
                    move.region,
                    name,
                    f"{before.get(name, 0)} %",
                    f"{after.get(name, 0)} %",
                ]
            )
    said = [*said, *(f"FAILED: {error.message}" for error in errors)]
    if context.dry_run:
        said.append("dry run: nothing was written; this is what would be")
    return terminal.Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "dry_run": context.dry_run,
            "errors": [error.message for error in errors],
            "regions": [
                {
                    "region": move.region,
                    "before": move.before.shares,
                    "after": move.after.shares,
                    "changed": move.before is not move.after,
                    "hold": move.after.hold.name if move.after.hold else None,
                    "url": (move.after.service.get("status") or {}).get("url"),
                }
                for move in moves
            ],
        },
        table=terminal.Table(
            columns=["REGION", "REVISION", "BEFORE", "AFTER"], rows=rows, notes=said
        ),
        code=1 if errors else 0,
        summary=run_page.of_moves(context, moves, said, title),
    )
