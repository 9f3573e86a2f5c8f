"""Three regions, one of which fails in each way: what is said about the others must be right."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tests.torture import cells, events, judge
from tests.torture.cells import Call, Result
from tests.torture.place import Ended, Facts, Place

REGIONS = ("us-central1", "europe-west1", "asia-east1")
VERBS = ("deliver", "deploy", "rollout", "promote", "rollback", "hold", "status", "smoke")
_STATES = {"deliver": "steady", "deploy": "steady"}
_FAULTS: dict[str, dict[str, Any]] = {
    **{
        name: events.ANY[name]
        for name in ("401-always", "403-always", "404-always", "503-always", "html-always", "cut")
    },
    "400": {"name": "status", "code": 400},
    "409": {"name": "status", "code": 409},
    "reset": {"name": "reset"},
    "lost": {"name": "lost"},
    "empty": {"name": "empty"},
    "no-fields": {"name": "no-fields"},
}
# Faults that Shipway cannot tell apart are together, as in `events`.
_ALIKE = (("401-always", "403-always"),)
_ALIKE_IN_READS = (*_ALIKE, ("reset", "lost"), ("html-always", "empty"))
_SHORT = 6  # seconds
_WHERE = (("GET", "*/services/*"), ("GET", "*/revisions*"), ("PUT", "*/services/*"))


@dataclass(frozen=True)
class Cell:
    """A verb, the region that fails, and how."""

    verb: str
    fault: str
    region: str
    method: str
    path: str
    nth: int
    patience: int = cells.FULL

    def __str__(self) -> str:
        return (
            f"regions {self.verb} {self.fault} {self.region} {self.method} {self.path} #{self.nth}"
        )


def record(place: Place, verb: str) -> frozenset[Call]:
    """Run a verb in three regions; return its calls."""
    _prepare(place, verb)
    mark = place.last_call()
    place.ship(verb, "--format", "json")
    return frozenset(cells.calls_since(place, mark))


def matrix(recorded: Mapping[str, Collection[Call]], seed: int) -> list[Cell]:
    """Return every cell, shuffled: each verb, each call that it makes, each fault, each region.

    Args:
        recorded: Verb -> the calls that it makes.
        seed: Of the order.
    """
    chance = random.Random(seed)
    start = chance.randrange(len(REGIONS))
    found = [
        Cell(verb, chance.choice(faults), region, method, path, nth, _patience(chance))
        for (v, verb), (r, region), (w, (method, path)), nth in itertools.product(
            enumerate(VERBS), enumerate(REGIONS), enumerate(_WHERE), (1, 2)
        )
        for f, faults in enumerate(_groups(method))
        if _makes(recorded[verb], region, method, path) >= nth
        # At a second read, the regions take turns.
        and (nth == 1 or method == "PUT" or (start + v + f + w) % len(REGIONS) == r)
    ]
    chance.shuffle(found)
    return found


def _groups(method: str) -> list[tuple[str, ...]]:
    """Return the faults of a call, those that are alike to Shipway together."""
    alike = _ALIKE_IN_READS if method == "GET" else _ALIKE
    known = {name for group in alike for name in group}
    return [*alike, *((name,) for name in _FAULTS if name not in known)]


def _makes(calls: Collection[Call], region: str, method: str, path: str) -> int:
    """Return how often a call is made in a region."""
    wanted = _at(region, path)
    return sum(call.method == method and fnmatchcase(call.pattern, wanted) for call in calls)


def _at(region: str, path: str) -> str:
    return f"*/locations/{region}{path.removeprefix('*')}"


def _prepare(place: Place, verb: str) -> None:
    place.restore(_STATES.get(verb, "ten"))
    if verb in ("deliver", "deploy"):
        place.ship("build")


def _patience(chance: random.Random) -> int:
    """Return the seconds of trouble that a cell allows: most get few, as in `cells`."""
    return _SHORT if chance.randrange(50) else cells.FULL


def run(place: Place, cell: Cell, late: float = 15) -> Result:
    """Run one cell in a place with three regions."""
    _prepare(place, cell.verb)
    words = [cell.verb, "--format", "json", "--timeout", f"{cell.patience}s"]
    limit = cell.patience + late
    before = {region: place.facts(region) for region in REGIONS}
    asked = place.load.asked
    place.start_fault({
        **_FAULTS[cell.fault], "method": cell.method, "from": cell.nth,
        "path": _at(cell.region, cell.path),
    })  # fmt: skip
    ended = place.ship(*words, limit=limit)
    struck = any(place.end_faults().values())
    after = {region: place.facts(region) for region in REGIONS}
    problems = _problems(place, cell, before, ended, after)
    again = None
    if ended.code and cell.verb != "status":
        second = place.ship(*words, limit=limit)
        again = second.code
        last = {region: place.by_role(place.facts(region).shares) for region in REGIONS}
        if second.code not in (0, 3):
            problems.append(f"again code {second.code}")
        elif len({json.dumps(one, sort_keys=True) for one in last.values()}) != 1:
            problems.append(f"again: exit {second.code}, the regions differ: {last}")
    failed, place.load.failed = place.load.failed, []
    problems += [f"requests failed: {len(failed)}, {failed[0]}"] if failed else []
    return Result(
        str(cell), cell.verb, _STATES.get(cell.verb, "ten"), cell.fault, problems, ended.code,
        round(ended.seconds, 2), again, place.load.asked - asked, struck,
        (ended.err + ended.out)[-2000:],
    )  # fmt: skip


def _problems(
    place: Place, cell: Cell, before: dict[str, Facts], ended: Ended, after: dict[str, Facts]
) -> list[str]:
    if not ended.in_time:
        return [f"late: it did not end within {ended.seconds:.0f} s"]
    problems = []
    said = ended.out + ended.err
    if found := judge.BUG.search(said):
        problems.append(f"bug: {found[0]}")
    for region in REGIONS:
        problems += [
            f"{one} in {region}"
            for one in judge.service_problems(place, before[region], after[region])
        ]
    moved = [name for name in REGIONS if before[name].shares != after[name].shares]
    wrote = [name for name in REGIONS if before[name].written != after[name].written]
    if ended.code in (2, 3) and wrote:
        problems.append(f"untrue {ended.code}: changed in {', '.join(wrote)}")
    if ended.code and cell.region not in said:
        problems.append(f"silent: {cell.region} is not named")
    for line in said.splitlines():
        about = [name for name in REGIONS if name in line] or [*REGIONS]
        if judge.SAME.search(line) and ended.code and len(about) != 1 and set(about) & set(moved):
            problems.append(f"untrue words: {line.strip()[:160]}; moved in {moved}")
    for region, shares in _told(ended.out).items():
        if shares != after[region].shares:
            problems.append(f"untrue state: {region} has {after[region].shares}, told {shares}")
    if ended.code == 0 and cell.verb in ("deliver", "rollout", "promote", "rollback"):
        ends = {json.dumps(after[name].shares, sort_keys=True) for name in REGIONS}
        if len(ends) != 1:
            problems.append("untrue 0: the regions differ")
    for region in moved:
        if ended.code and region not in said:
            problems.append(f"silent: traffic moved in {region}")
    return problems


def _told(out: str) -> dict[str, dict[str, int]]:
    """Return region -> the shares that the result names."""
    try:
        found = json.loads(out).get("regions") or []
    except (ValueError, AttributeError):
        return {}
    told = {}
    for one in found:
        if isinstance(one, dict) and isinstance(one.get("after"), dict):
            told[one["region"]] = {k: v for k, v in one["after"].items() if v}
        elif isinstance(one, dict) and isinstance(one.get("revisions"), list):
            shares = {r["revision"]: r["percent"] for r in one["revisions"] if r["percent"]}
            told[one["region"]] = shares
    return told
