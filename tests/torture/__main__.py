"""Torture: every verb, every call that it makes, every fault; kills, races, a model, regions.

`nox -s torture -- --help` lists the options. A cell that fails is printed with the command that
runs it alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.torture import cells, worker
from tests.torture.cells import Cell, Result
from tests.torture.place import STATES


def main(argv: list[str]) -> int:
    """Run the parts that were asked for; return 1 if a cell failed."""
    given = _arguments(argv)
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    results: list[Result] = []
    try:
        with ProcessPoolExecutor(
            given.workers, context, initializer=worker.open_in, initargs=(str(folder),)
        ) as pool:
            results += _matrix(pool, given, began + given.minutes * 60)
            for _ in range(given.workers):
                pool.submit(worker.close)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _report(results, given, time.monotonic() - began)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=25, help="time limit of all cells")
    parser.add_argument("--cells", type=int, default=100_000, help="most cells")
    parser.add_argument("--workers", type=int, default=5, help="local Cloud Runs at the same time")
    parser.add_argument("--limit", type=float, default=65, help="seconds that a command may take")
    parser.add_argument("--scale", type=float, default=0.1, help="of the pauses of a cancel")
    parser.add_argument("--only", default="*", help="pattern of the cells' names")
    parser.add_argument("--verbs", default="", help="verbs, separated by commas")
    parser.add_argument("--json", type=Path, help="write every result to this file")
    parser.add_argument("--failures", type=int, default=40, help="failures to print in full")
    return parser.parse_args(argv)


def _matrix(pool: ProcessPoolExecutor, given: argparse.Namespace, deadline: float) -> list[Result]:
    verbs = given.verbs.split(",") if given.verbs else [*cells.VERBS]
    recorded = [pool.submit(worker.record, verb, state) for state in STATES for verb in verbs]
    recordings, results = [], []
    for one in recorded:
        recording, result = one.result()
        recordings.append(recording)
        results.append(result)
    found = {(one.verb, one.state): one for one in recordings}
    asked = [cell for cell in cells.matrix(recordings, given.seed) if _fits(cell, given.only)]
    results = [result for result in results if fnmatchcase(result.cell, given.only)]
    print(f"{len(asked)} cells from {len(recordings)} recordings", file=sys.stderr, flush=True)
    work = (
        (worker.run, cell, found[cell.verb, cell.state], given.limit, given.scale)
        for cell in asked[: given.cells]
    )
    for result in _in_turn(pool, work, given.workers, deadline):
        results.append(result)
        if len(results) % 100 == 0:
            bad = sum(bool(one.problems) for one in results)
            print(f"{len(results)} cells, {bad} failed", file=sys.stderr, flush=True)
    return results


def _in_turn(
    pool: ProcessPoolExecutor, work: Iterator[Any], workers: int, deadline: float
) -> Iterator[Any]:
    """Yield results as they come, until the work or the time is over."""
    running: set[Future[Any]] = set()
    while True:
        while len(running) < workers + 1 and time.monotonic() < deadline:
            following = next(work, None)
            if following is None:
                break
            running.add(pool.submit(*following))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for one in done:
            yield one.result()


def _fits(cell: Cell, only: str) -> bool:
    return fnmatchcase(str(cell), only)


def _report(results: list[Result], given: argparse.Namespace, seconds: float) -> int:
    if given.json:
        given.json.write_text(json.dumps([one.document() for one in results], indent=1))
    failed = [one for one in results if one.problems]
    verbs = [verb for verb in cells.VERBS if any(one.verb == verb for one in results)]
    events = sorted({one.event for one in results}, key=_order)
    print(f"\n{'':18}" + "".join(f"{verb[:8]:>9}" for verb in verbs))
    for event in events:
        row = [_count(results, event, verb) for verb in verbs]
        print(f"{event:18}" + "".join(f"{one:>9}" for one in row))
    classes = Counter(problem.partition(":")[0] for one in failed for problem in one.problems)
    print("\nFailed, by class:")
    for name, count in classes.most_common():
        print(f"  {count:5} {name}")
    shown: Counter[str] = Counter()
    for one in failed:
        key = one.problems[0].partition(":")[0]
        shown[key] += 1
        if shown[key] <= max(1, given.failures // max(1, len(classes))):
            print(f"\n{one.cell}: exit {one.code}, again {one.again}, {one.seconds} s")
            for problem in one.problems:
                print(f"  - {problem}")
            for line in one.said.strip().splitlines()[-4:]:
                print(f"    | {line[:200]}")
            print(f"    python -m tests.torture --verbs {one.verb} --only '{_escaped(one.cell)}'")
    missed = sum(not one.struck for one in results)
    kills = sum(one.event in cells.KILLS or one.event == cells.CLOUD for one in results)
    print(
        f"\n{len(results)} cells ({kills} kills) in {seconds:.0f} s, seed {given.seed}:"
        f" {len(failed)} failed, {missed} ended before their event."
        f" {sum(one.asked for one in results):,} user requests,"
        f" {sum('requests failed' in p for one in failed for p in one.problems)} cells lost one."
    )
    return 1 if failed else 0


def _escaped(text: str) -> str:
    return text.replace("[", "[[]").replace("*", "[*]")


def _order(event: str) -> tuple[int, str]:
    names = ["alone", *cells.ANY, *cells.READS, *cells.WRITES, *cells.UPLOADS, *cells.REVISIONS]
    names += [*cells.KILLS, cells.CLOUD]
    return (names.index(event) if event in names else len(names), event)


def _count(results: list[Result], event: str, verb: str) -> str:
    """Return how many cells failed, of how many; "." for none."""
    found = [one for one in results if one.event == event and one.verb == verb]
    bad = sum(bool(one.problems) for one in found)
    return f"{bad}/{len(found)}" if bad else str(len(found) or ".")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
