"""The record of one call of a verb: plain data that the verb fills and the run page reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import Pipeline
from scripts.ledger import Write
from scripts.machine.git import Commit

Shares = dict[str, int]
"""Revision -> percentage."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """How one smoke check ended; `took` is in seconds."""

    name: str
    ok: bool
    took: float
    problem: str = ""


class StepTaken(msgspec.Struct, kw_only=True):
    """One step of a rollout: its percentage, the traffic during it, and its bake in seconds."""

    percent: int
    shares: Shares
    bake: float
    ended: bool = False
    """Whether the whole bake passed."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What users were answered by a release and by stable, as last seen.

    Attributes:
        said: the verdict and the evidence in one line.
        columns: of the table.
        rows: of the table: both revisions in each region.
        links: what it leads to -> the address; {} if another address stands in for Google's.
        data: the numbers, for JSON.
    """

    said: str
    columns: list[str]
    rows: list[list[str]]
    links: dict[str, str]
    data: dict[str, Any]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The traffic of one region: what is in force, and what was asked for."""

    served: Shares
    wanted: Shares


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the traffic in one region."""

    region: str
    before: Shares
    after: Shares
    changed: bool
    candidate: str | None = None
    """The revision that is being released, as last read."""
    url: str | None = None
    """The service's own URL."""
    urls: dict[str, str] = {}
    """Revision -> the URL of its tag."""
    hold: str | None = None
    """The name of the hold, as last read."""


class Record(msgspec.Struct, kw_only=True):
    """The record of one call of a verb."""

    verb: str
    root: Path
    """The folder that holds pipelines/."""
    started: float = msgspec.field(default_factory=time.monotonic)
    service: str | None = None
    env: str | None = None
    where: str = ""
    """The words that name the service and the environment in a command; "" while unknown."""
    project: str = ""
    regions: list[str] = []
    at_google: bool = True
    """False if another address stands in for Google's."""
    commit: Commit | None = None
    images: dict[str, ImageReference] = {}
    """Placeholder in the manifest → the commit's image by digest."""
    provenance: str = ""
    """Who signed the image's provenance, in one line; "" if that was not checked."""
    checks: dict[str, list[Checked]] = {}
    """Region -> the checks that ran last."""
    steps: list[StepTaken] = []
    watched: Watched | None = None
    moves: list[Moved] = []
    first: dict[str, Shares] = {}
    """Region -> the traffic in force as first read; {} where there was no service."""
    serving: dict[str, Shares] = {}
    """Region -> the traffic in force as last read."""
    moved: bool = False
    """Whether any read showed other traffic than the first one."""
    look: Callable[[], dict[str, Live]] | None = None
    """Reads the traffic of every region; None for a verb that does not write."""
    writes: list[Write] = []
    """Every write that was sent, in order, and how each one ended."""
    reason: str | None = None
    dry_run: bool = False

    def saw(self, region: str, shares: Shares) -> None:
        """Record the traffic in force that was just read."""
        self.moved |= self.first.setdefault(region, shares) != shares
        self.serving[region] = shares

    def about(self, pipeline: Pipeline) -> None:
        """Record the service and the environment of the call."""
        self.service = pipeline.service
        self.env = pipeline.env
        self.where = pipeline.where
        self.project = pipeline.environment.project
        self.regions = pipeline.environment.regions
        self.at_google = pipeline.at_google
