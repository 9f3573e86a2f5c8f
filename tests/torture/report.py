"""What the torture found: tables, failures with the command that repeats each, and one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.torture import cells, events
from tests.torture.cells import Result

HEAD = (
    "| Part | Size | Failed | User requests | With a failed request |",
    "| --- | --- | --- | --- | --- |",
)
_PAGE = Path(__file__).resolve().parents[2] / "docs/reliability.md"
_LINES, _WALK = 4, 60  # that are shown of a command's, and of a walk's output


@dataclass(frozen=True)
class Found:
    """What a part found.

    Attributes:
        results: Its results.
        unit: What each of them is.
        whole: How many there would be with more time.
    """

    results: list[Result]
    unit: str
    whole: int

    @property
    def reached(self) -> int:
        """How many there would be, without those that ended before what was to happen."""
        return self.whole - sum(not one.struck for one in self.results)


def cut(part: str, found: Found) -> str:
    """Return what to say if the time did not suffice for a part; else ""."""
    if len(found.results) >= found.whole:
        return ""
    return (
        f"{part}: the time was over after {len(found.results):,} of {found.whole:,} {found.unit};"
        " --minutes gives more"
    )


def table(results: Sequence[Result]) -> list[str]:
    """Return a line for each event: how many cells failed, of how many, for each verb."""
    verbs = [verb for verb in cells.VERBS if any(one.verb == verb for one in results)]
    lines = [f"{'':18}" + "".join(f"{verb[:8]:>9}" for verb in verbs)]
    for event in sorted({one.event for one in results}, key=_order):
        row = [_count(results, event, verb) for verb in verbs]
        lines.append(f"{event:18}" + "".join(f"{one:>9}" for one in row))
    return lines


def failures(results: Sequence[Result], most: int) -> list[str]:
    """Return the failures by class, and examples of each class."""
    failed = [one for one in results if one.problems]
    classes = Counter(kind(problem) for one in failed for problem in one.problems)
    lines = [f"  {count:5} {name}" for name, count in classes.most_common()]
    shown: Counter[str] = Counter()
    for one in failed:
        key = kind(one.problems[0])
        shown[key] += 1
        if shown[key] > max(1, most // max(1, len(classes))):
            continue
        lines += ["", f"{one.cell}: exit {one.code}, again {one.again}, {one.seconds:.1f} s"]
        lines += [f"  - {problem}" for problem in one.problems]
        said = one.said.strip().splitlines()[-(_WALK if one.verb == "model" else _LINES) :]
        lines += [f"    | {line[:200]}" for line in said]
        lines.append(f"    nox -s torture -- {_repeat(one)}")
    return lines


def row(part: str, found: Found) -> str:
    """Return the numbers of a part, as a row of the table in docs/reliability.md."""
    results = [one for one in found.results if one.struck]
    failed = [one for one in found.results if one.problems]
    kills = sum(one.event in events.KILLS or one.event == events.CLOUD for one in results)
    gcloud = sum(one.event == "gcloud" for one in results)
    steps = sum(one.steps for one in results)
    size = f"{len(results):,}"
    size += f" of {found.reached:,}" if len(results) < found.reached else ""
    size += f" {found.unit}"
    size += f", {kills:,} of them kills" if kills else ""
    size += f", {gcloud:,} of them with edits by gcloud" if gcloud else ""
    size += f" of {steps:,} steps" if steps else ""
    asked = sum(one.asked for one in found.results)
    lost = sum(kind(p) == "requests failed" for one in failed for p in one.problems)
    return f"| {part} | {size} | {len(failed):,} | {asked:,} | {lost:,} |"


def publish(rows: Sequence[str]) -> None:
    """Replace the rows of the table in docs/reliability.md."""
    before, head, after = _PAGE.read_text().partition("\n".join(HEAD) + "\n")
    _, blank, rest = after.partition("\n\n")
    _PAGE.write_text(before + head + "\n".join(rows) + blank + rest)


def rate(part: str, found: Found, seconds: float) -> str:
    """Return how fast a part was, and how many of its events had no call to strike."""
    steps = sum(one.steps for one in found.results)
    made = steps or len(found.results)
    missed = sum(not one.struck for one in found.results)
    unit = "steps" if steps else found.unit
    return (
        f"{part}: {made:,} {unit} in {seconds:.0f} s, {made / seconds * 60:.0f} a minute; {missed}"
        f" {found.unit} ended before the call at which something was to happen"
    )


def kind(problem: str) -> str:
    """Return the class of a problem."""
    return problem.partition(":")[0]


def _repeat(one: Result) -> str:
    if one.cell.startswith(("race", "model")):
        kind, number, _, seed = one.cell.split()[:4]
        parts = "races" if kind == "race" else "model"
        return f"--parts {parts} --seed {seed} --only '{kind} {number}'"
    if one.cell.startswith("regions"):
        return f"--parts regions --only '{_escaped(one.cell)}'"
    return f"--parts matrix --verbs {one.verb} --only '{_escaped(one.cell)}'"


def _escaped(text: str) -> str:
    return text.replace("[", "[[]").replace("*", "[*]")


def _order(event: str) -> tuple[int, str]:
    names = ["alone", *events.FAULTS, *events.KILLS, events.CLOUD]
    return (names.index(event) if event in names else len(names), event)


def _count(results: Sequence[Result], event: str, verb: str) -> str:
    """Return how many cells failed, of how many; "." for none."""
    found = [one for one in results if one.event == event and one.verb == verb and one.struck]
    bad = sum(bool(one.problems) for one in found)
    return f"{bad}/{len(found)}" if bad else str(len(found) or ".")
