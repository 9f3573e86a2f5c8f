"""Services and environments in a grid: what is live where, and what needs someone's attention."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import msgspec

from scripts.cloud.google import ApiError, NoAnswer, Unreachable
from scripts.command.call import Call
from scripts.command.tables import Table
from scripts.config import pipelines, running
from scripts.config.pipelines import DEFAULT_ENV, Pipeline
from scripts.errors import ShipError
from scripts.machine import git
from scripts.release.state import State, is_finished
from scripts.several import reads

_MOST_PLACES = 5
_LEAST = 14  # what the most common cell takes: a short commit and "100 %"
_OWN_NAME = re.compile(r".*-([0-9a-f]{7})(?:-\d+)?")

Found = State | None | ShipError
"""What was read in one region; None if the service does not exist there."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One service in one environment.

    Attributes:
        pipeline: its files; None if they are wrong.
        regions: region -> what was read there.
        error: what is wrong with its files.
    """

    pipeline: Pipeline | None
    regions: Mapping[str, Found] = {}
    error: ShipError | None = None


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """What is live.

    Attributes:
        root: the folder that holds pipelines/.
        environments: their names, each one after the one that it follows.
        cells: service -> environment -> cell, for the environments that a service has.
        left_out: lines about environments that were not read.
    """

    root: Path
    environments: list[str]
    cells: Mapping[str, Mapping[str, Cell]]
    left_out: list[str]


def read(call: Call, names: list[str], env: str, timeout: str) -> Grid:
    """Read services in every environment, or in one.

    Each service costs two requests in each environment and region.

    Args:
        call: the call.
        names: the services.
        env: the one environment; "" for every one that is up.
        timeout: how long to keep trying while Google fails to answer.
    """
    envs = [env] if env else None
    files = {name: pipelines.load_each(call.root, name, envs) for name in names}
    left_out = []
    found: dict[str, dict[str, Cell]] = {}
    wanted: list[Pipeline] = []
    is_up = cache(lambda: running.find(call.root) is not None)
    for name, of in files.items():
        found[name] = {}
        for one, loaded in of.items():
            if isinstance(loaded, ShipError):
                found[name][one] = Cell(pipeline=None, error=loaded)
            elif env or not loaded.uses_up or is_up():
                wanted.append(loaded)
            else:
                left_out.append(one)
    regions = reads.regions(wanted, timeout, call.progress.line)
    answers = reads.glance(regions, call.progress.line)
    read_: dict[tuple[str, str], dict[str, Found]] = {}
    for region, answer in zip(regions, answers, strict=True):
        key = region.name, region.pipeline.env
        read_.setdefault(key, {})[region.region] = answer
    for pipeline in wanted:
        cell = Cell(pipeline=pipeline, regions=read_[pipeline.service, pipeline.env])
        found[pipeline.service][pipeline.env] = cell
    return Grid(
        root=call.root,
        environments=_ordered(found),
        cells=found,
        left_out=[
            f"left out: {name}, whose local Cloud Run is not up (./ship up --background)"
            for name in sorted({*left_out})
        ],
    )


def _ordered(cells: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Return the environments, each after the one that it follows."""
    after: dict[str, str | None] = {}
    for of in cells.values():
        for env, cell in of.items():
            earlier = cell.pipeline.environment.after if cell.pipeline else None
            after[env] = after.get(env) or earlier

    def depth(env: str, seen: tuple[str, ...] = ()) -> int:
        earlier = after.get(env)
        return 1 + depth(earlier, (*seen, env)) if earlier and earlier not in seen else 0

    return sorted(after, key=lambda env: (depth(env), env))


def table(grid: Grid) -> Table:
    """Make the table: a row for each service, a column for each environment, notes below."""
    behind = cache(lambda one, other: git.distance(grid.root, one, other))
    rows, notes = [], []
    unread: dict[str, list[str]] = {}
    for name, cells in grid.cells.items():
        row = [name]
        for env in grid.environments:
            cell = cells.get(env)
            row.append(_text(cell) + _drift(cell, cells, behind) if cell else "-")
            where = name if env == DEFAULT_ENV else f"{name} --env {env}"
            if cell:
                notes += _notes(where, cell)
                for message in _errors(cell):
                    places = unread.setdefault(message, [])
                    places += [where] if where not in places else []
        rows.append(row)
    columns = [env.upper() for env in grid.environments]
    return Table(
        columns=["SERVICE", *columns],
        rows=rows,
        notes=[
            *notes,
            *(f"{_listed(where)}: {message}" for message, where in unread.items()),
            *grid.left_out,
        ],
        breaks=dict.fromkeys(columns, _LEAST),
    )


def _listed(places: list[str]) -> str:
    """Return the first places, and how many more there are."""
    more = len(places) - _MOST_PLACES
    return ", ".join(places[:_MOST_PLACES]) + (f" and {more} more" if more > 0 else "")


def _text(cell: Cell) -> str:
    if cell.error:
        return "not valid"
    texts = {region: _of_region(found) for region, found in cell.regions.items()}
    if len({*texts.values()}) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{region}: {text}" for region, text in texts.items())


def _of_region(found: Found) -> str:
    if found is None:
        return "not delivered"
    if isinstance(found, ShipError):
        return _of_error(found)
    marks = [
        word
        for word, holds in (
            ("HOLD", found.hold),
            ("FAILED", found.failure),
            ("NOT IN FORCE", not found.in_force),
        )
        if holds
    ]
    return " ".join([_traffic(found), *marks])


def _of_error(error: ShipError) -> str:
    if isinstance(error, ApiError):
        return f"{error.code} {error.status}".rstrip()
    return "no answer" if isinstance(error, Unreachable | NoAnswer) else "cannot be read"


def _traffic(state: State) -> str:
    """Return the live commits: the candidate's share first, then what it replaces."""
    shares = {name: share for name, share in state.served.items() if share}
    if not shares:
        return "nothing serves"
    names = sorted(shares, key=lambda name: -shares[name])
    candidate = state.candidate
    if candidate in shares and len(names) > 1 and not is_finished(state, candidate):
        others = [name for name in names if name != candidate]
        return f"{_commit(state, candidate)} {shares[candidate]} % <- " + ", ".join(
            _commit(state, name) for name in others
        )
    return ", ".join(f"{_commit(state, name)} {shares[name]} %" for name in names)


def _commit(state: State, name: str) -> str:
    """Return a revision's short commit; its name if it has none."""
    if commit := state.commits.get(name):
        return commit[:7]
    own = _OWN_NAME.fullmatch(name) if name not in state.revisions else None
    return own[1] if own else name


def _live(cell: Cell | None) -> str | None:
    """Return the one commit that has all traffic in every region, or None."""
    commits = set()
    for found in cell.regions.values() if cell else ():
        if not isinstance(found, State) or len(found.served) != 1:
            return None
        commits.add(found.commits.get(next(iter(found.served)), ""))
    return commits.pop() or None if len(commits) == 1 else None


def _drift(cell: Cell, cells: Mapping[str, Cell], behind: Callable[[str, str], int | None]) -> str:
    """Return how far an environment is behind the one that it follows; "" if it is not."""
    earlier = cell.pipeline.environment.after if cell.pipeline else None
    ours, theirs = _live(cell), _live(cells.get(earlier)) if earlier else None
    if not ours or not theirs or ours == theirs:
        return ""
    count = behind(ours, theirs)
    return f", {count} behind" if count else f", not {earlier}'s"


def _notes(where: str, cell: Cell) -> list[str]:
    """Return what needs attention in a cell, each with the next command."""
    notes = []
    for region, state in cell.regions.items():
        if not isinstance(state, State):
            continue
        place = f"{where} ({region})" if len(cell.regions) > 1 else where
        if state.hold:
            notes.append(f"{place}: ON HOLD: {state.hold}. Release it: ./ship resume {where}")
        if state.failure:
            notes.append(f"{place}: FAILED: {state.failure}. Try it again: ./ship rollout {where}")
        if not state.in_force:
            notes.append(f"{place}: NOT IN FORCE: {state.not_taken}. See: ./ship status {where}")
    return notes


def _errors(cell: Cell) -> list[str]:
    """Return what could not be read, each with what to do about it."""
    found = [
        error for error in (cell.error, *cell.regions.values()) if isinstance(error, ShipError)
    ]
    return [f"{error.message}{f' -> {error.hint}' if error.hint else ''}" for error in found]


def errors(grid: Grid) -> list[str]:
    """Return a line for each thing that could not be read."""
    return [
        f"{name} in {env}: {message}"
        for name, cells in grid.cells.items()
        for env, cell in cells.items()
        for message in _errors(cell)
    ]
