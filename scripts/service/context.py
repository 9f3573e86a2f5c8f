"""The context of a verb about one service: its files, its regions, the actor, the confirmation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.cloud.patience import Patience
from scripts.command import together
from scripts.command.call import Call
from scripts.command.options import ServiceOptions, WritingOptions
from scripts.command.progress import Progress
from scripts.command.record import Live
from scripts.command.words import moment
from scripts.config import pipelines
from scripts.config.pipelines import Pipeline, seconds
from scripts.errors import Refused
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.release.changes import Actor
from scripts.release.memory import Event
from scripts.release.state import State
from scripts.service import on_demand
from scripts.service.callees import Callees

if TYPE_CHECKING:
    from scripts.image.commit_images import CommitImages
    from scripts.service.notify import Notifier


class Context:
    """One call of a verb about one service.

    Args:
        options: the command line, parsed.
        call: the call, whose record this fills.
        pipeline: the service's files; read from the call's root unless given.
        override: the name of the hold that the caller overrides.
        only_reads: whether the verb never writes.
        starts: whether the local Cloud Run is started if the environment uses it and it is not up.
    """

    def __init__(
        self,
        options: ServiceOptions,
        call: Call,
        pipeline: Pipeline | None = None,
        *,
        override: str | None = None,
        only_reads: bool = False,
        starts: bool = True,
    ) -> None:
        self.root = call.root
        self.pipeline = pipeline or pipelines.load(call.root, options.service, options.env)
        self.override = override
        self.record = call.record
        self.record.about(self.pipeline)
        self._call = call
        self._notifier: Notifier | None = None
        self._writing = options if isinstance(options, WritingOptions) else None
        self.record.reason = self._writing.reason if self._writing else None
        if starts:
            on_demand.bring_up(self.pipeline, yes=self._writing is not None and self._writing.yes)
        self.dry_run = only_reads or (self._writing is not None and self._writing.dry_run)
        self.record.dry_run = self.dry_run
        self.google = Google(
            self.pipeline,
            dry_run=self.dry_run,
            writes=self.record.writes,
            patience=Patience(seconds(options.timeout), self._say),
        )
        self.regions = [
            CloudRun(self.google, self.pipeline, region, self._saw, self._changed)
            for region in self.pipeline.environment.regions
        ]

        if self._writing is not None and not self.dry_run:
            self.record.look = self._look

    def _saw(self, region: str, state: State) -> None:
        self.record.saw(region, dict(state.served))

    def _changed(self, event: Event) -> None:
        if not self.pipeline.environment.notify:
            return
        if self._notifier is None:
            # Imported here: most environments notify no one.
            from scripts.service.notify import Notifier

            self._notifier = Notifier(self.pipeline, self._say)
            self._call.at_end.append(self._notifier.close)
        self._notifier.changed(event)

    def _look(self) -> dict[str, Live]:
        """Read the traffic of every region; it is empty where there is no service."""
        states = {region.region: region.read() for region in self.regions}
        return {
            name: Live(served=dict(state.served), wanted=dict(state.shares))
            if state
            else Live(served={}, wanted={})
            for name, state in states.items()
        }

    def _say(self, line: str) -> None:
        self.progress.line(line)

    @property
    def progress(self) -> Progress:
        """Where progress is printed."""
        return self._call.progress

    @cached_property
    def images(self) -> CommitImages:
        """The service's images, in its environment's registry."""
        # Imported here: most verbs need no registry, and start sooner without it.
        from scripts.image.commit_images import CommitImages

        return CommitImages(self.pipeline, self.google, self.root)

    @cached_property
    def callees(self) -> Callees:
        """The services that this one calls."""
        return Callees(self.google, self.pipeline, self._say)

    @property
    def where(self) -> str:
        """What to type after a verb to mean this service here."""
        return self.pipeline.where

    def actor(self) -> Actor:
        """Return who acts, now, and why."""
        return Actor(by=git.actor(), at=self.now(), why=self.record.reason or "")

    def now(self, *, after: float = 0) -> str:
        """Return the time by Google's clock, or one so many seconds later, as RFC 3339 in UTC.

        What is stored has this time, as other machines read it, and it is compared with numbers.
        """
        return moment(self.google.now() + after)

    def confirm(self, what: str) -> None:
        """Ask for confirmation if the environment requires it and someone can answer.

        Raises:
            Refused: the answer is not yes.
        """
        asks = self._writing is not None and not self._writing.yes and not self.dry_run
        if self.pipeline.environment.confirm and asks:
            confirm(what)


def confirm(what: str) -> None:
    """Ask for confirmation if someone can answer.

    Raises:
        Refused: the answer is not yes.
    """
    if not sys.stdin.isatty() or os.environ.get("CI"):
        return  # in CI no one answers, terminal or not
    what = " ".join(what.split())  # a commit's subject forges no line below the question
    print(f"{what}\nGo ahead? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed: nothing changed", "--yes confirms in advance")


def report_uncommitted(call: Call, commit: Commit, differ: int) -> None:
    """Report how many changes are left out, if any."""
    if differ:
        call.progress.line(
            f"note: {differ} uncommitted change{'s are' if differ > 1 else ' is'} left out;"
            f" this uses commit {commit.short}"
        )


@contextmanager
def at_commit(
    options: ServiceOptions,
    call: Call,
    reference: str,
    *,
    override: str | None = None,
    only_reads: bool = False,
) -> Iterator[tuple[Context, Commit]]:
    """Open a call on the files of a commit, its configuration included.

    Args:
        options: the command line, parsed.
        call: the call.
        reference: names the commit.
        override: as for `Context`.
        only_reads: as for `Context`.
    """
    commit = git.commit(call.root, reference)
    uncommitted = git.counting_uncommitted(call.root)
    with git.checkout(call.root, commit, pipelines.folders) as files:
        if not together.services():  # what started this process has reported them
            report_uncommitted(call, commit, uncommitted())
        pipeline = pipelines.load(files, options.service, options.env, checkout=call.root)
        context = Context(options, call, pipeline, override=override, only_reads=only_reads)
        context.record.commit = commit
        yield context, commit
