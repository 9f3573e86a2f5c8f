"""Torture Shipway: every verb, each of its calls, each fault; kills, races, a model, regions.

The parts: `regions`, `races`, `model` and `matrix`. Each part has a share of the time; what it does
not use is for the parts after it. The last lines are the table of docs/reliability.md. A failure is
printed with the command that repeats it. The exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.torture import cells, regions, report, worker
from tests.torture.cells import Result
from tests.torture.place import STATES
from tests.torture.report import Found

PARTS = {"regions": 22, "races": 8, "model": 20, "matrix": 50}
"""Each part's share of the time, in percent. The matrix is last: it is the longest."""
_GCLOUD_EVERY = 40  # rounds: gcloud takes seconds
_SELDOM = -2  # a wait that took more calls when it was recorded: its last call is left out
_MEMORY = Path("/dev/shm")


def main(argv: list[str]) -> int:
    """Run the parts that were asked for."""
    given = _arguments(argv)
    # In memory, where there is such a folder: a disk that syncs each write takes half of the time.
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=_MEMORY if _MEMORY.is_dir() else None))
    results: list[Result] = []
    lines: list[str] = []
    short: list[str] = []
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    end = start + given.minutes * 60
    left = {part: PARTS[part] for part in PARTS if part in given.parts.split(",")}
    left |= {part: float(share) for part, _, share in (o.partition("=") for o in given.share)}
    try:
        with ProcessPoolExecutor(
            given.workers, context, initializer=worker.open_in, initargs=(str(folder),)
        ) as pool:
            while left:
                part, share = next(iter(left.items()))
                began = time.monotonic()
                deadline = began + (end - began) * share / sum(left.values())
                del left[part]
                run = {"matrix": _matrix, "races": _races, "regions": _regions, "model": _model}
                found = run[part](pool, given, deadline)
                results += found.results
                lines.append(report.row(part, found))
                short += filter(None, [report.cut(part, found)])
                print(report.rate(part, found, time.monotonic() - began), file=sys.stderr)
                if part == "matrix":
                    print("\n".join(report.table(found.results)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        given.json.write_text(json.dumps([one.document() for one in results], indent=1))
    print("\n".join(["", *report.failures(results, given.failures), ""]))
    minutes, load = (time.monotonic() - start) / 60, os.getloadavg()[2]
    print("\n".join([*report.HEAD, *lines, "", *short]))
    print(
        f"seed {given.seed}: {minutes:.1f} minutes on {os.cpu_count()} cores; load average of the"
        f" last 15 minutes: {load:.0f}"
    )
    if given.write:
        report.publish(lines)
    return 1 if any(one.problems for one in results) else 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s torture --", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=28, help="time for all parts (default: %(default)s)"
    )
    shares = ", ".join(f"{part}={share}" for part, share in PARTS.items())
    parser.add_argument(
        "--share", action="append", default=[], metavar="PART=NUMBER",
        help=f"another share of the time for a part (default: {shares})",
    )  # fmt: skip
    parser.add_argument("--cells", type=int, default=100_000, help="most cells of the matrix")
    parser.add_argument("--rounds", type=int, default=400, help="most races")
    parser.add_argument("--steps", type=int, default=10_000, help="most steps of the model")
    parser.add_argument(
        "--workers", type=int, default=20, help="local Cloud Runs at once (default: %(default)s)"
    )
    parser.add_argument(
        "--late",
        type=float,
        default=15,
        help="seconds that a command may take beyond its --timeout (default: %(default)s)",
    )
    parser.add_argument(
        "--scale", type=float, default=0.1,
        help="of the runner's pauses between INT, TERM and KILL (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--only", default="*", help="pattern of the cells' names")
    parser.add_argument("--verbs", default=",".join(cells.VERBS), help="of the matrix")
    parser.add_argument(
        "--write", action="store_true", help="write the table into docs/reliability.md, too"
    )
    parser.add_argument("--json", type=Path, help="write every result to this file")
    parser.add_argument("--failures", type=int, default=40, help="failures to print in full")
    given = parser.parse_args(argv)
    if given.write and set(given.parts.split(",")) != set(PARTS):
        parser.error("--write: the table has all parts; leave --parts out")
    if unknown := set(given.parts.split(",")) - set(PARTS):
        parser.error(f"--parts: {', '.join(unknown)}: expected {', '.join(PARTS)}")
    for one in given.share:
        if not re.fullmatch(rf"({given.parts.replace(',', '|')})=\d+(\.\d+)?", one):
            parser.error(f"--share: {one}: expected one of --parts and a number, as in matrix=60")
    return given


def _matrix(pool: ProcessPoolExecutor, given: argparse.Namespace, deadline: float) -> Found:
    recorded = [
        pool.submit(worker.record, verb, state)
        for state in STATES
        for verb in given.verbs.split(",")
    ]
    done = [one.result() for one in recorded]
    recordings = {(one.verb, one.state): one for one, _ in done}
    results = [result for _, result in done if fnmatchcase(result.cell, given.only)]
    alone = len(results)
    asked = [
        cell
        for cell in cells.matrix([*recordings.values()], given.seed)
        if fnmatchcase(str(cell), given.only)
    ]
    print(f"matrix: {len(asked):,} cells from {len(done)} recordings", file=sys.stderr, flush=True)
    asked = asked[: given.cells]
    calls = {str(cell): (cell.verb, cell.state, *cell.call) for cell in asked}
    reached: Counter[object] = Counter()  # of each call: how much oftener than not
    skipped = 0

    def work() -> Iterator[Any]:
        nonlocal skipped
        for cell in asked:
            if reached[calls[str(cell)]] <= _SELDOM:
                skipped += 1
            else:
                recording = recordings[cell.verb, cell.state]
                yield worker.run, cell, recording, given.late, given.scale

    for result in _in_turn(pool, work(), given.workers, deadline):
        results.append(result)
        reached[calls[result.cell]] += 1 if result.struck else -1
    return Found(results, "cells", len(asked) - skipped + alone)


def _races(pool: ProcessPoolExecutor, given: argparse.Namespace, deadline: float) -> Found:
    every = _GCLOUD_EVERY if shutil.which("gcloud") else given.rounds + 1
    work = (
        (worker.race, number, given.seed, number % every == every - 1)
        for number in range(given.rounds)
        if fnmatchcase(f"race {number}", given.only)
    )
    results = [*_in_turn(pool, work, given.workers, deadline)]
    return Found(results, "rounds", given.rounds if given.only == "*" else len(results))


def _regions(pool: ProcessPoolExecutor, given: argparse.Namespace, deadline: float) -> Found:
    made = [pool.submit(worker.region_calls, verb) for verb in regions.VERBS]
    recorded = dict(zip(regions.VERBS, [one.result() for one in made], strict=True))
    found = [
        cell for cell in regions.matrix(recorded, given.seed) if fnmatchcase(str(cell), given.only)
    ]
    work = ((worker.region, cell, given.late) for cell in found)
    results = [*_in_turn(pool, work, given.workers, deadline)]
    return Found(results, "cells", len(found))


def _model(pool: ProcessPoolExecutor, given: argparse.Namespace, deadline: float) -> Found:
    """Walk in pieces of 100 steps; a failure ends its piece."""
    work = (
        (worker.walk, number, given.seed, 100)
        for number in range(-(-given.steps // 100))
        if fnmatchcase(f"model {number}", given.only)
    )
    results = []
    for number, steps, asked, failure in _in_turn(pool, work, given.workers, deadline):
        first, _, rest = failure.partition("\n")
        name = f"model {number} seed {given.seed}"
        problems = [f"model: {first}"] if failure else []
        walk = Result(name, "model", "", "model", problems, 0, 0, asked=asked, steps=steps)
        walk.said = rest[:3000]
        results.append(walk)
    walks = -(-given.steps // 100)
    return Found(results, "walks", walks if given.only == "*" else len(results))


def _in_turn(
    pool: ProcessPoolExecutor, work: Iterable[Any], workers: int, deadline: float
) -> Iterator[Any]:
    """Yield results as they come, until the work or the time is over."""
    rest = iter(work)
    running: set[Future[Any]] = set()
    while True:
        while len(running) < workers + 1 and time.monotonic() < deadline:
            following = next(rest, None)
            if following is None:
                break
            running.add(pool.submit(*following))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for one in done:
            result = one.result()
            if isinstance(result, Result) and result.problems:
                print(f"{result.cell}: {result.problems}", file=sys.stderr, flush=True)
            yield result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
