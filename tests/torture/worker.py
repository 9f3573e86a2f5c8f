"""A worker process: it has one place, and makes a new one if that breaks."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture import cells
from tests.torture.cells import Cell, Recording, Result
from tests.torture.place import Place

_place: Place | None = None
_folder: Path


def open_in(folder: str) -> None:
    global _folder
    _folder = Path(folder)


def _here() -> Place:
    global _place
    if _place is None:
        _place = Place(Path(tempfile.mkdtemp(dir=_folder)))
    return _place


def close() -> None:
    global _place
    if _place is not None:
        _place.close()
        _place = None
    time.sleep(0.5)  # so that each worker gets one of these


def again(work: Callable[[Place], Any]) -> Any:
    """Work in this worker's place; make a new one if it broke."""
    global _place
    try:
        return work(_here())
    except Exception as error:
        print(f"(a new place: {type(error).__name__}: {str(error)[:200]})", file=sys.stderr)
        if _place is not None:
            _place.close()
            _place = None
        return work(_here())


def record(verb: str, state: str) -> tuple[Recording, Result]:
    found: tuple[Recording, Result] = again(lambda place: cells.record(place, verb, state))
    return found


def run(cell: Cell, recording: Recording, limit: float, scale: float) -> Result:
    def work(place: Place) -> Result:
        return cells.run(place, cell, recording, limit=limit, scale=scale)

    try:
        found: Result = again(work)
    except Exception as error:
        why = f"harness: {type(error).__name__}: {error}"
        found = Result(str(cell), cell.verb, cell.state, cell.event, [why], -99, 0)
    return found
