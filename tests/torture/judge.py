"""What must be true after a command, whatever happened to it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.torture.place import FOREIGN, Ended, Facts, Place

READERS = ("status", "history", "plan", "logs", "smoke")
UP = ("deliver", "rollout", "promote")
BUG = re.compile(r"Traceback \(most recent call last\)|this should not happen")
SAME = re.compile(
    r"traffic is unchanged|nothing was (sent|written|changed)|nothing (has )?changed"
    r"|serves what it did before|only reads were sent"
)
_ADMITS = re.compile(
    r"could not be moved back|unknown|not known|may have|cannot tell|was written|was changed"
    r"|has moved|moved to|is done|was done|live now|serves|in progress|still"
)
_TIMES = {"since", "at", "created", "age", "by", "log"}


@dataclass(frozen=True)
class Goal:
    """How a command ends when nothing goes wrong, in a state: the measure for when it does.

    Attributes:
        marks: What else the service has: each tag with its revision, the names of annotations.
        shown: What a reading verb shows.
    """

    code: int
    shares: dict[str, int]
    hold: str
    candidate: str
    built: bool
    tagged: bool
    marks: frozenset[str]
    shown: str


def goal(place: Place, verb: str, ended: Ended, facts: Facts) -> Goal:
    """Measure an end."""
    commit = place.commits.get("new", place.commits["v3"])
    return Goal(
        code=ended.code,
        shares=place.by_role(facts.shares),
        hold=_named(place, facts.hold),
        candidate=place.role(facts.candidate),
        built=commit in facts.written["images"],
        tagged=f"sha-{commit[:7]}" in facts.tags,
        marks=_marks(place, facts),
        shown=_shown(place, verb, ended.out) if verb in READERS and ended.code in (0, 4) else "",
    )


def _marks(place: Place, facts: Facts) -> frozenset[str]:
    tags = {f"{_named(place, tag)} {place.role(name)}" for tag, name in facts.tags.items()}
    return frozenset(tags | set(facts.written["annotations"]))


def reached(verb: str, wanted: Goal, found: Goal) -> str:
    """Return what of a goal is missing; "" for nothing."""
    if verb in READERS:
        return "" if wanted.shown == found.shown else "it shows something else"
    missing = []
    for name in ("shares", "hold", "candidate"):
        if getattr(wanted, name) != getattr(found, name):
            missing.append(f"{name} {getattr(found, name)}, wanted {getattr(wanted, name)}")
    for name in ("built", "tagged"):
        if getattr(wanted, name) and not getattr(found, name):
            missing.append(f"not {name}")
    return "; ".join(missing)


def _shown(place: Place, verb: str, out: str) -> str:
    """Return what a reading verb shows, without names and times."""
    if verb in ("logs", "smoke"):
        return ""
    out = _named(place, out)
    try:
        document = _timeless(json.loads(out))
    except ValueError:
        return out
    if verb == "history":  # it lists what earlier cells left, too
        kept = [one for one in document["revisions"] if one["revision"] in place.roles.values()]
        document = sorted(json.dumps(one, sort_keys=True) for one in kept)
    return json.dumps(document, sort_keys=True)


def _named(place: Place, text: str) -> str:
    """Return a text with roles instead of the names that differ from place to place."""
    for revision, role in place.roles.items():
        text = text.replace(revision, role)
    for role, commit in place.commits.items():
        text = text.replace(commit, role).replace(commit[:7], role)
    text = text.replace(place.project.name, "svc")
    return re.sub(r"sha256:[0-9a-f]+|127\.0\.0\.1:\d+|\d{4}-\d\d-\d\dT[\d:.]+Z", "…", text)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in _TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def verdict(
    place: Place,
    verb: str,
    before: Facts,
    ended: Ended,
    after: Facts,
    wanted: Goal,
    *,
    killed: bool = False,
    lies: bool = False,
) -> list[str]:
    """Return what is wrong after a command, each with the name of a class of failures first.

    Args:
        place: Where it ran.
        verb: The command's verb.
        before: The service before it.
        ended: How it ended.
        after: The service after it.
        wanted: How it ends when nothing goes wrong.
        killed: Whether it was sent a signal.
        lies: Whether an answer was spoiled in a way that no client can notice.
    """  # fmt: skip
    problems = service_problems(place, before, after)
    said = ended.out + ended.err
    moved = before.shares != after.shares
    same = before.written == after.written
    if not ended.in_time:
        return [*problems, f"late: it did not end within {ended.seconds:.0f} s"]
    too_early = killed and "in main" not in said  # Python itself was still starting
    if BUG.search(said) and not (too_early and "KeyboardInterrupt" in said):
        problems.append(f"bug: {_line_of(BUG, said)}")
    if killed and (ended.code < 0 or ended.code == 130):
        return problems
    if ended.code == 0 and not lies and wanted.code in (0, 4):
        found = goal(place, verb, ended, after)
        if missing := reached(verb, wanted, found):
            problems.append(f"untrue 0: {missing}")
    elif ended.code in (2, 3) and not same:
        problems.append(f"untrue {ended.code}: {_difference(before, after)}")
    elif ended.code == 4 and verb != "plan":
        problems.append("code: 4")
    elif ended.code not in (0, 1, 2, 3, 4):
        problems.append(f"code: {ended.code}")
    if before.hold and moved and verb in UP:
        problems.append(f"I7: {place.by_role(after.shares)} during a hold")
    if ended.code != 0 and moved:
        if SAME.search(said):
            problems.append(f"untrue words: {_line_of(SAME, said)}")
        elif verb in UP[:2] and not _ADMITS.search(said):
            problems.append(f"I5: traffic stays {place.by_role(after.shares)}, silently")
        elif not _ADMITS.search(said):
            problems.append(f"silent: traffic moved to {place.by_role(after.shares)}")
    if verb in READERS and not same:
        problems.append(f"read: {_difference(before, after)}")
    return problems


def service_problems(place: Place, before: Facts, after: Facts) -> list[str]:
    """Check what must be true of the service at every moment."""
    problems = []
    traffic = after.service["spec"].get("traffic", [])
    if any(one.get("latestRevision") for one in traffic):
        problems.append("I1: latestRevision")
    if sum(after.shares.values()) != 100 or sum(after.planned.values()) != 100:
        problems.append(f"I3: {after.shares} of {after.planned}")
    for name in after.shares:
        if not after.revisions.get(name) and name not in before.shares:
            problems.append(f"I4: {place.role(name)} has traffic and is not ready")
    image = after.service["spec"]["template"]["spec"]["containers"][0]["image"]
    if "@sha256:" not in image:
        problems.append(f"I2: {image}")
    metadata = after.service["metadata"]
    if after.tags.get(FOREIGN["tag"]) != before.tags.get(FOREIGN["tag"]):
        problems.append("I8: the foreign tag is lost")
    if metadata["annotations"].get(FOREIGN["annotation"]) != "someone":
        problems.append("I8: the foreign annotation is lost")
    if metadata["labels"].get(FOREIGN["label"]) != "red":
        problems.append("I8: the foreign label is lost")
    return problems


def again_problems(
    place: Place, verb: str, first: Ended, again: Ended, after: Facts, wanted: Goal
) -> list[str]:
    """Check the same command, typed again when nothing is wrong any more."""
    problems = []
    if not again.in_time:
        return ["again late"]
    if BUG.search(again.out + again.err):
        problems.append(f"again bug: {_line_of(BUG, again.out + again.err)}")
    if again.code not in (0, wanted.code):
        problems.append(f"again code {again.code}: {_last(again)}")
    elif again.code == 0 and first.code == 0 and verb == "promote":
        pass  # the next step was asked for
    elif wanted.code in (0, 4) and (
        missing := reached(verb, wanted, goal(place, verb, again, after))
    ):
        problems.append(f"again: exit {again.code}, {missing}")
    return problems


def _difference(before: Facts, after: Facts) -> str:
    return "changed " + ", ".join(
        name for name in before.written if before.written[name] != after.written[name]
    )


def _line_of(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    assert found
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.end())
    return text[start : end if end >= 0 else None].strip()[:160]


def _last(ended: Ended) -> str:
    lines = [line for line in ended.err.splitlines() if line.startswith("ship:")]
    return (lines or ended.err.splitlines() or [""])[-1][:160]
