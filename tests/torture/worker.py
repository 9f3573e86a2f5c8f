"""A worker process: it has a place of its own, and makes a new one if that breaks."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from multiprocessing import util
from pathlib import Path
from typing import TypeVar

from tests.torture import cells, model, races, regions
from tests.torture.cells import Cell, Recording, Result
from tests.torture.place import Place

T = TypeVar("T")

_folder: Path
_ONE = ("us-central1",)
_places: dict[tuple[str, ...], Place] = {}


def open_in(folder: str) -> None:
    """Prepare this process; `folder` is for its places."""
    global _folder
    _folder = Path(folder)
    util.Finalize(None, _drop, exitpriority=100)  # a worker's atexit functions do not run


def record(verb: str, state: str) -> tuple[Recording, Result]:
    """Record a verb: `cells.record`."""
    return _work(_ONE, lambda place: cells.record(place, verb, state))


def run(cell: Cell, recording: Recording, late: float, scale: float) -> Result:
    """Run a cell of the matrix."""
    return _judged(
        str(cell), cell.verb, cell.event, _ONE,
        lambda place: cells.run(place, cell, recording, late=late, scale=scale),
    )  # fmt: skip


def race(number: int, seed: int, by_gcloud: bool) -> Result:
    """Run a round of the races."""
    return _judged(
        f"race {number}", "race", "race", _ONE,
        lambda place: races.round_of(place, number, seed, by_gcloud=by_gcloud),
    )  # fmt: skip


def region_calls(verb: str) -> frozenset[cells.Call]:
    """Record a verb in three regions: `regions.record`."""
    return _work(regions.REGIONS, lambda place: regions.record(place, verb))


def region(cell: regions.Cell, late: float) -> Result:
    """Run a cell of three regions."""
    return _judged(
        str(cell), cell.verb, cell.fault, regions.REGIONS,
        lambda place: regions.run(place, cell, late),
    )  # fmt: skip


def walk(number: int, seed: int, steps: int) -> tuple[int, int, int, str]:
    """Take the model through some steps; return the number, and what `model.run` returns."""
    try:
        made, asked, failure = model.run(_place(_ONE), seed * 1000 + number, steps)
    except Exception as error:
        made, asked, failure = 0, 0, f"harness: {type(error).__name__}: {error}"
    if failure:
        _drop()  # what failed may be left over
    return number, made, asked, failure


def _work(where: tuple[str, ...], work: Callable[[Place], T]) -> T:
    """Work in this worker's place; make a new one if it broke, and print why."""
    try:
        return work(_place(where))
    except Exception as error:
        print(f"a new place: {type(error).__name__}: {str(error)[:500]}", file=sys.stderr)
        _drop()
        return work(_place(where))


def _judged(
    name: str, verb: str, event: str, where: tuple[str, ...], work: Callable[[Place], Result]
) -> Result:
    try:
        return _work(where, work)
    except Exception as error:
        why = f"harness: {type(error).__name__}: {error}"
        return Result(name, verb, "", event, [why], -99, 0)


def _place(where: tuple[str, ...]) -> Place:
    if where not in _places:
        _drop()  # one at a time: each one costs memory
        _places[where] = Place(Path(tempfile.mkdtemp(dir=_folder)), where)
    return _places[where]


def _drop() -> None:
    for place in _places.values():
        place.close()
    _places.clear()
