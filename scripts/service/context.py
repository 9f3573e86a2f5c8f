"""What a verb is given: the files, the regions, the actor, and how to report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.command import run_page
from scripts.command.call import Call
from scripts.command.options import ServiceOptions, WritingOptions
from scripts.command.progress import Progress
from scripts.command.record import Moved
from scripts.command.results import Result, Table
from scripts.command.words import by_share, now
from scripts.config import pipelines
from scripts.config.pipelines import Pipeline
from scripts.errors import Refused, ShipError
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.release.changes import Actor
from scripts.release.state import State


class Context:
    """One call of a verb about one service.

    Args:
        options: the command line, parsed.
        call: the call, whose record this fills.
        pipeline: the service's files; read from the call's root unless given.
        override: the name of the hold that the caller overrides.
        only_reads: whether the verb never writes.
    """

    def __init__(
        self,
        options: ServiceOptions,
        call: Call,
        pipeline: Pipeline | None = None,
        *,
        override: str | None = None,
        only_reads: bool = False,
    ) -> None:
        self.root = call.root
        self.pipeline = pipeline or pipelines.load(call.root, options.service, options.env)
        self.override = override
        self.record = call.record
        self.record.about(self.pipeline)
        self._call = call
        self._writing = options if isinstance(options, WritingOptions) else None
        self.record.reason = self._writing.reason if self._writing else None
        self.dry_run = only_reads or (self._writing is not None and self._writing.dry_run)
        self.record.dry_run = self.dry_run
        self.google = Google(self.pipeline, dry_run=self.dry_run)
        self.regions = [
            CloudRun(self.google, self.pipeline, region, self._saw)
            for region in self.pipeline.environment.regions
        ]

    def _saw(self, region: str, state: State) -> None:
        self.record.serving[region] = dict(state.shares)

    @property
    def progress(self) -> Progress:
        """Where progress is printed."""
        return self._call.progress

    @property
    def where(self) -> str:
        """What to type after a verb to mean this service here."""
        return self.pipeline.where

    def actor(self) -> Actor:
        """Who asks, now, and why."""
        return Actor(by=git.actor(), at=now(), why=self.record.reason or "")

    def confirm(self, what: str) -> None:
        """Ask once before a change, where the environment wants that and somebody can answer.

        Raises:
            Refused: the answer is not yes.
        """
        asks = self._writing is not None and not self._writing.yes and not self.dry_run
        wanted = self.pipeline.environment.confirm and asks
        if not wanted or not sys.stdin.isatty() or os.environ.get("CI"):
            return  # in CI no one answers, terminal or not
        what = " ".join(what.split())  # a commit's subject forges no line below the question
        print(f"{what}\nGo ahead? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused("not confirmed: nothing was changed", "--yes answers beforehand")


@contextmanager
def at_commit(
    options: ServiceOptions,
    call: Call,
    reference: str,
    *,
    override: str | None = None,
    only_reads: bool = False,
) -> Iterator[tuple[Context, Commit]]:
    """A call on the files of the commit that is delivered, configuration included.

    Args:
        options: the command line, parsed.
        call: the call.
        reference: names the commit.
        override: as for `Context`.
        only_reads: as for `Context`.
    """
    commit = git.commit(call.root, reference)
    differ = git.uncommitted(call.root)
    if differ:
        call.progress.line(
            f"note: {differ} uncommitted change{'s are' if differ > 1 else ' is'} left out:"
            f" commit {commit.short} is what counts"
        )
    with git.checkout(call.root, commit) as files:
        pipeline = pipelines.load(files, options.service, options.env)
        context = Context(options, call, pipeline, override=override, only_reads=only_reads)
        context.record.commit = commit
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
) -> Result:
    """The result of a traffic change: before and after, per region, and what went wrong.

    Its page has the verb's own title unless another is given.
    """
    context.record.moves = [_moved(move) for move in moves]
    rows = [
        [
            move.region,
            name,
            f"{move.before.get(name, 0)} %",
            f"{move.after.get(name, 0)} %",
        ]
        for move in context.record.moves
        for name in by_share(move.after, *move.before)
    ]
    said = [*said, *(f"FAILED: {error.message}" for error in errors)]
    if context.dry_run:
        said.append("dry run: nothing was written; this is what would be")
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "dry_run": context.dry_run,
            "errors": [error.message for error in errors],
            "regions": [
                {
                    "region": move.region,
                    "before": move.before,
                    "after": move.after,
                    "changed": move.changed,
                    "hold": move.hold,
                    "url": move.url,
                }
                for move in context.record.moves
            ],
        },
        table=Table(columns=["REGION", "REVISION", "BEFORE", "AFTER"], rows=rows, notes=said),
        code=1 if errors else 0,
        page=run_page.of_change(context.record, said, title),
    )


def _moved(move: Move) -> Moved:
    status = move.after.service.get("status") or {}
    return Moved(
        region=move.region,
        before=dict(move.before.shares),
        after=dict(move.after.shares),
        changed=move.before is not move.after,
        candidate=move.after.candidate,
        url=status.get("url"),
        urls={
            target["revisionName"]: target.get("url") or ""
            for target in status.get("traffic") or []
            if target.get("tag")
        },
        hold=move.after.hold.name if move.after.hold else None,
    )
