"""The cells of the matrix: a verb, in a state, while something happens at one of its calls.

They are made from recordings: each verb runs once in each state, and every call that it made gets
every fault. So a call that Shipway begins to make tomorrow is covered. Cells that are the same are
left out:

- A call that is repeated without another one in between waits for something: of more than three,
  the first two and the last one count.
- A read changes nothing: what happens after it is the same as what happens before it. SIGKILL
  leaves nothing of a command: before any read it is the same as after the last write.
- Faults that Shipway cannot tell apart (`events`) take turns. So do SIGINT and SIGTERM, which have
  one handler.
- Each verb has a first state: the one in which it makes the most calls. There, each of its calls
  gets every fault, and ten moments get every kill. In its other states, each write does, too; at a
  read, faults that end in the same way take turns, and there are three moments.
- A verb that writes nothing and makes the same calls in two states is tried in one of them.
- A command that ended where it ends when nothing goes wrong is not typed again: the recording has
  typed it again from there.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from tests.torture import events, judge
from tests.torture.events import CLOUD, KILLS, REVISIONS
from tests.torture.judge import Goal
from tests.torture.place import STATES, Ended, Place, Running

VERBS = (
    "deliver", "deploy", "smoke", "rollout", "promote", "rollback", "hold", "resume", "status",
    "history", "plan", "logs", "build",
)  # fmt: skip
_OF_A_COMMIT = ("deliver", "deploy", "build")
FULL = 60
"""The seconds that a command keeps trying, by default."""
_SHORT = {"hang": 8, "hang-always": 8, "hang-done": 8}  # a hang takes 3 seconds of them
_SHORT_OTHERWISE = 4
_FULL_EVERY = 50  # cells with a lasting fault
_LIES = ("stale", "no-fields", "404", "404-always")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUNNER = (7.5, 2.5)  # seconds from INT to TERM, and from TERM to KILL
_LOOK = 0.03


@dataclass(frozen=True)
class Call:
    """A call of a recording: the nth of those with the same method and pattern of the path."""

    method: str
    pattern: str
    nth: int

    def __str__(self) -> str:
        path = self.pattern.removeprefix("*")
        return f"{self.method} {path} #{self.nth}"

    @property
    def writes(self) -> bool:
        return self.method != "GET" and self.method != "HEAD" and "entries" not in self.pattern


@dataclass(frozen=True)
class Cell:
    """One experiment. `event` is the name of a fault or a kill; "" for the recording itself."""

    verb: str
    state: str
    event: str = ""
    when: str = ""
    method: str = ""
    pattern: str = ""
    nth: int = 0
    patience: int = FULL

    @property
    def call(self) -> tuple[str, str, int]:
        return self.method, self.pattern, self.nth

    def __str__(self) -> str:
        where = f" {self.method} {self.pattern} #{self.nth}" if self.method else ""
        return f"{self.verb} {self.state} {self.event or 'alone'}{self.when}{where}"


@dataclass
class Result:
    """What a cell found."""

    cell: str
    verb: str
    state: str
    event: str
    problems: list[str]
    code: int
    seconds: float
    again: int | None = None
    asked: int = 0
    struck: bool = True
    said: str = ""
    steps: int = 0

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Recording:
    """A verb that ran alone in a state: its calls, and how it ended."""

    verb: str
    state: str
    calls: tuple[Call, ...]
    goal: Goal
    seconds: float


def words(place: Place, verb: str) -> list[str]:
    """Return the command line of a verb."""
    if verb in _OF_A_COMMIT:
        return [verb, "--commit", place.commits.get("new", place.commits["v3"])]
    # A place has the revisions of all cells before this one.
    every = ["--limit", "100000"] if verb == "history" else []
    return [verb, *every, "--format", "json"] if verb in judge.READERS else [verb]


def prepare(place: Place, verb: str, state: str) -> None:
    """Put the service into a state in which a verb can work: `deploy` needs an image."""
    place.restore(state)
    if verb == "deploy" and "new" in place.commits:
        place.ship("build", "--commit", place.commits["new"])


def pattern(path: str, service: str) -> str:
    """Return the pattern of a path that holds in every run: without names that differ."""
    bare = path.partition("?")[0]
    parts = []
    for part in bare.split("/"):
        part = _UUID.sub("*", part)
        varies = re.fullmatch(r"[0-9a-f]{12,}", part) or part.startswith(f"{service}-")
        parts.append("*" if varies else re.sub(r"^sha256:.*", "sha256:*", part))
    return "*" + "/".join("*" if one == service else one for one in parts)


def record(place: Place, verb: str, state: str) -> tuple[Recording, Result]:
    """Run a verb alone, note its calls, and judge its end like any other."""
    prepare(place, verb, state)
    before, mark, asked = place.facts(), place.last_call(), place.load.asked
    ended = place.ship(*words(place, verb))
    calls = calls_since(place, mark)
    after = place.facts()
    wanted = judge.goal(place, verb, ended, after)
    problems = judge.verdict(place, verb, before, ended, after, wanted)
    if verb != "promote":
        again = place.ship(*words(place, verb))
        problems += judge.again_problems(place, verb, ended, again, place.facts(), wanted)
    problems += _failed_requests(place)
    recording = Recording(verb, state, calls, wanted, ended.seconds)
    cell = Cell(verb, state)
    return recording, Result(
        str(cell), verb, state, "alone", problems, ended.code, ended.seconds,
        asked=place.load.asked - asked, said=ended.err[-1500:],
    )  # fmt: skip


def calls_since(place: Place, mark: int) -> tuple[Call, ...]:
    """Return the calls that were made after another one."""
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for call in place.calls(mark):
        key = (call["method"], pattern(call["path"], place.project.name))
        counts[key] += 1
        calls.append(Call(*key, counts[key]))
    return tuple(calls)


def matrix(recordings: list[Recording], seed: int) -> list[Cell]:
    """Return every cell, in an order in which a part of them has something of everything.

    For each verb, the recording with the most calls comes first: after it, every verb was tried
    with every fault at every call. Then come the other states.
    """
    chance = random.Random(seed)
    first: list[Cell] = []
    rest: list[Cell] = []
    verbs: set[str] = set()
    known: set[object] = set()
    turns: dict[str, events.Turns] = {}
    for one in sorted(recordings, key=lambda one: -len(one.calls)):
        writes = any(call.writes for call in one.calls)
        kind = (one.verb, one.goal.code, frozenset(one.calls), writes and one.state)
        if kind not in known:
            is_first = one.verb not in verbs
            found = first if is_first else rest
            found.extend(_cells_of(one, chance, turns, first=is_first))
        known.add(kind)
        verbs.add(one.verb)
    return [*_spread(first, chance), *_spread(rest, chance)]


def _spread(found: list[Cell], chance: random.Random) -> list[Cell]:
    """Shuffle cells so that each share of them has as much of each verb and event as the whole."""
    chance.shuffle(found)
    sizes = Counter((cell.verb, cell.event) for cell in found)
    seen: Counter[tuple[str, str]] = Counter()
    turns = []
    for cell in found:
        key = (cell.verb, cell.event)
        turns.append(((seen[key] + chance.random()) / sizes[key], cell))
        seen[key] += 1
    return [cell for _, cell in sorted(turns, key=lambda turn: turn[0])]


def _cells_of(
    recording: Recording, chance: random.Random, turns: dict[str, events.Turns], *, first: bool
) -> Iterator[Cell]:
    verb, state = recording.verb, recording.state
    takes = turns.setdefault(verb, events.Turns(chance))
    writes = any(call.writes for call in recording.calls)
    for call in _distinct(recording.calls):
        at = (call.method, call.pattern, call.nth)
        for group in events.at(call.method, call.pattern, writes=call.writes, first=first):
            event = takes.one_of(group)
            if event == "stale" and call.nth == 1:
                continue  # there is no earlier answer
            short = events.lasts(event) and chance.randrange(_FULL_EVERY)
            patience = _SHORT.get(event, _SHORT_OTHERWISE) if short else FULL
            yield Cell(verb, state, event, "", *at, patience)
        for when in (" before", " after") if call.writes else (" before",):
            for group in events.kills(writes=call.writes, first=first):
                kill = takes.one_of(group)
                if kill != "kill" or call.writes or not writes:
                    yield Cell(verb, state, kill, when, *at)
    parts = (10 if first else 3) if writes else 3
    for part in range(parts):
        for group in events.kills(writes=writes, first=first):
            yield Cell(verb, state, takes.one_of(group), f" at {100 * part // parts} %")
    if verb in _OF_A_COMMIT and state == "steady":
        for event in REVISIONS:
            yield Cell(verb, state, event)


def _distinct(calls: tuple[Call, ...]) -> list[Call]:
    """Return calls; of more than three of one kind in a row, the first two and the last one."""
    kept = []
    for _, same in groupby(calls, key=lambda call: (call.method, call.pattern)):
        row = [*same]
        kept += row if len(row) <= 3 else [*row[:2], row[-1]]
    return kept


def run(
    place: Place, cell: Cell, recording: Recording, *, late: float = 15, scale: float = 0.1
) -> Result:
    """Run one cell: the state, the event, the command, and the same command again."""
    prepare(place, cell.verb, cell.state)
    before, asked = place.facts(), place.load.asked
    wanted = recording.goal
    command = [*words(place, cell.verb), "--timeout", f"{cell.patience}s"]
    limit = cell.patience + late
    if cell.event in KILLS or cell.event == CLOUD:
        ended, struck = _killed(place, cell, recording, command, limit, scale)
    else:
        place.start_fault(_fault(cell, place))
        ended = place.ship(*command, limit=limit)
        struck = any(place.end_faults().values())
    after = place.facts()
    killed = cell.event in KILLS
    lies = cell.event in _LIES and cell.method in ("GET", "HEAD", "POST")
    problems = judge.verdict(
        place, cell.verb, before, ended, after, wanted, killed=killed, lies=lies
    )
    again = None
    # Once its result is printed, the next step is what the same command asks for.
    is_done = cell.verb == "promote" and (ended.code == 0 or (killed and bool(ended.out)))
    # The recording typed it again from there.
    is_done |= not problems and judge.goal(place, cell.verb, ended, after) == wanted
    if not is_done and cell.event not in REVISIONS:
        again = place.ship(*command, limit=limit)
        problems += judge.again_problems(place, cell.verb, ended, again, place.facts(), wanted)
    if cell.event == "revision-crashes":  # no tool can prevent failures while it has traffic
        place.restore(cell.state)
        _failed_requests(place)
    else:
        problems += _failed_requests(place)
    return Result(
        str(cell), cell.verb, cell.state, cell.event, problems, ended.code,
        round(ended.seconds, 2), again.code if again else None, place.load.asked - asked, struck,
        ended.err[-1500:] if problems else "",
    )  # fmt: skip


def _failed_requests(place: Place) -> list[str]:
    failed, place.load.failed = place.load.failed, []
    return [f"requests failed: {len(failed)}, {failed[0]}"] if failed else []


def _fault(cell: Cell, place: Place) -> dict[str, Any]:
    known = events.FAULTS[cell.event]
    if cell.event in REVISIONS:
        return {**known, "revision": place.project.revision(place.commits["new"])}
    return {**known, "method": cell.method, "path": cell.pattern, "from": cell.nth}


def stopped_at(
    place: Place,
    command: list[str],
    how: str,
    method: str,
    nth: int,
    after: bool,
    *,
    path: str = "*",
    limit: float = 65,
    scale: float = 0.1,
) -> tuple[Ended, bool]:
    """Run a command, and kill it or the local Cloud Run when it makes a call.

    Returns:
        How it ended, and whether it made the call.
    """  # fmt: skip
    place.start_fault({
        "name": "hang", "times": 1, "method": method, "path": path, "from": nth, "done": after,
    })  # fmt: skip
    running = place.start(*command)
    deadline = time.monotonic() + limit
    while not (struck := place.struck()) and time.monotonic() < deadline:
        if running.process.poll() is not None:
            break
        time.sleep(_LOOK)
    return _kill(place, running, how, limit, scale), struck


def _kill(place: Place, running: Running, how: str, limit: float, scale: float) -> Ended:
    if how == CLOUD:
        place.crash()
        return running.wait(limit)
    _stop(running, how, scale)
    ended = running.wait(limit)
    place.end_faults()
    return ended


def _killed(
    place: Place, cell: Cell, recording: Recording, command: list[str], limit: float, scale: float
) -> tuple[Ended, bool]:
    """Run a command and kill it, or the local Cloud Run, at a call or after a part of its time."""
    if cell.method:
        return stopped_at(
            place, command, cell.event, cell.method, cell.nth, cell.when == " after",
            path=cell.pattern, limit=limit, scale=scale,
        )  # fmt: skip
    running = place.start(*command)
    time.sleep(recording.seconds * int(cell.when.split()[1]) / 100)
    return _kill(place, running, cell.event, limit, scale), True


def _stop(running: Running, how: str, scale: float) -> None:
    if how != "cancel":
        numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
        return running.signal(numbers[how])
    for number, pause in zip((signal.SIGINT, signal.SIGTERM), _RUNNER, strict=True):
        running.signal(number)
        if running.process._end(pause * scale) is not None:
            return None
    return running.signal(signal.SIGKILL)


__all__ = ["STATES", "VERBS", "Cell", "Recording", "Result", "matrix", "record", "run"]
