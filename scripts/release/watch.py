"""What users were answered by a candidate and by stable, and what that says. Pure.

All is computed from the numbers since the rollout began, so two watchers decide the same, and one
that takes a rollout up knows what the one before it knew.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from scripts.config.formats import Watch
from scripts.release.evidence import Evidence, Verdict, Window, bets, judge, mean
from scripts.release.state import State

_MINUTE_ANSWERS = 20  # of a minute whose share says something
_USUAL = 0.95  # of the minutes, where they vary: the worse ones are accidents
_GROWING = 10  # the newest windows, which are folded again at each look


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one revision with one kind of status, in one stretch of time.

    Attributes:
        revision: its name.
        start: when it begins, in seconds since the epoch.
        end: when it ends.
        is_error: whether they are 5xx.
        latencies: how many took from `low` to `high` milliseconds: (low, high) -> number.
    """

    revision: str
    start: float
    end: float
    is_error: bool
    latencies: dict[tuple[float, float], int]

    @property
    def answers(self) -> int:
        """How many they are."""
        return sum(self.latencies.values())

    def slower(self, milliseconds: float) -> int:
        """How many are certain to have taken longer: those in the ranges above it."""
        return sum(n for (low, _), n in self.latencies.items() if low >= milliseconds)


class Read(NamedTuple):
    """What was read of one region: all its answers since a moment.

    Attributes:
        points: the answers.
        until: up to when they are complete, in seconds since the epoch.
        behind: the seconds before the newest complete ones that were left for the next read.
    """

    points: list[Point]
    until: float
    behind: float = 0.0


class Answers(msgspec.Struct, kw_only=True):
    """The answers of one revision since a rollout began."""

    answers: int = 0
    errors: int = 0
    slow: int = 0
    latencies: Counter[tuple[float, float]] = msgspec.field(default_factory=Counter)

    def add(self, point: Point, over: float) -> None:
        """Count a point's answers; those that took longer than `over` milliseconds are slow."""
        self.answers += point.answers
        self.errors += point.answers if point.is_error else 0
        self.slow += point.slower(over)
        self.latencies.update(point.latencies)

    def percentile(self, percent: float) -> float | None:
        """Return a latency in milliseconds, as if the answers of a range were spread evenly."""
        rank, below = sum(self.latencies.values()) * percent / 100, 0
        for (low, high), number in sorted(self.latencies.items()):
            if below + number >= rank:
                end = high if math.isfinite(high) else low
                return low + (end - low) * (rank - below) / number
            below += number
        return None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in one region: both revisions' answers, and the windows they fell in."""

    candidate: Answers
    stable: Answers
    errors: list[tuple[float, Window]]
    """(when it ended, the window), oldest first."""
    slow: list[tuple[float, Window]]
    compared: int
    """The candidate's answers in windows in which stable answered, too."""


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What stable's shares of bad answers were before it was replaced, at most."""

    errors: float
    slow: float


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in one region since the candidate has all traffic, and what it must keep."""

    seen: Seen
    promised: Promise


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in all regions, and what it says.

    Attributes:
        seen: region -> what was seen there during the rollout; {} if it cannot be read.
        later: region -> what was seen there since the last step.
        by_region: region -> the evidence there alone: the mean of its questions.
        verdict: what all say together.
        behind: the seconds of answers that could not be read yet.
    """

    seen: dict[str, Seen]
    later: dict[str, Later]
    by_region: dict[str, float]
    verdict: Verdict
    behind: float = 0.0


def begun(state: State, revision: str) -> str | None:
    """Return when a revision's rollout began to give it traffic (RFC 3339); None if it did not."""
    at = None
    for event in reversed(state.log):
        own = event.revision == revision
        if own and event.verb == "failed":
            break
        if event.percent is None:
            continue
        if not own or event.verb not in ("rollout", "promote"):
            break
        at = event.at
    return at


def given_all(state: State, revision: str) -> str | None:
    """Return when a revision got all traffic (RFC 3339); None if it does not have it."""
    if state.shares != {revision: 100}:
        return None
    at = None
    for event in reversed(state.log):
        if event.percent is None:
            continue
        if event.revision != revision or event.percent != 100:
            break
        at = event.at  # a rollout that was taken up takes its last step twice
    return at


def promise(points: Iterable[Point], stable: str, rules: Watch, until: float) -> Promise | None:
    """Return what a candidate that has replaced stable must keep; None if stable answered too few.

    The shares are stable's in the hour before the rollout and during it, plus two standard
    deviations of such a count, so that a quiet hour promises no more than it can. Where they vary
    from minute to minute by more than chance explains, the share that 19 of 20 minutes kept counts
    instead.
    """
    seen = see(points, stable, "", rules=rules, since=-math.inf, until=until)
    if seen.candidate.answers < rules.at_least:
        return None
    return Promise(errors=_most(seen.errors), slow=_most(seen.slow))


def _most(windows: Iterable[tuple[float, Window]]) -> float:
    """Return the largest share of bad answers that says nothing new of a revision.

    Pearson's chi-squared statistic tells whether minutes differ by more than chance: by more than
    three standard deviations of it, with the variance that a binomial's fourth moment gives. Such
    minutes fail a limit that knows only the mean, as in control charts
    (https://support.minitab.com/en-us/minitab/help-and-how-to/quality-and-process-improvement/control-charts/supporting-topics/understanding-attributes-control-charts/overdispersion-and-underdispersion).
    """
    minutes: list[tuple[int, int]] = []  # (answers, bad ones); quiet ones are joined
    answers = bad = 0
    for _, window in windows:
        answers, bad = answers + window.answers, bad + window.bad
        if answers >= _MINUTE_ANSWERS:
            minutes.append((answers, bad))
            answers = bad = 0
    minutes.append((answers, bad))
    answers, bad = (sum(column) for column in zip(*minutes, strict=True))
    usual = bad / answers
    chance = [n * usual * (1 - usual) for n, _ in minutes if n]
    if any(chance):
        found = sum((b - n * usual) ** 2 / (n * usual * (1 - usual)) for n, b in minutes if n)
        spread = math.sqrt(sum(2 + 1 / one for one in chance))
        if found > len(chance) + 3 * spread:
            bounds = sorted(_bound(*one) for one in minutes if one[0] >= _MINUTE_ANSWERS)
            return max(_bound(answers, bad), bounds[int(_USUAL * len(bounds))])
    return _bound(answers, bad)


def _bound(answers: int, bad: int) -> float:
    return min(1.0, (bad + 1 + 2 * math.sqrt(bad + 1)) / answers)


def is_kept(seen: Answers, rules: Watch, promised: Promise) -> bool:
    """Return whether a revision's shares are within what was promised, and the tolerance."""
    counts = (
        (seen.errors, promised.errors, rules.errors),
        (seen.slow, promised.slow, rules.latency),
    )
    return all(
        bad <= (most + share(rule.worse_by)) * seen.answers
        for bad, most, rule in counts
        if rule is not None
    )


def see(
    points: Iterable[Point],
    candidate: str,
    stable: str,
    *,
    rules: Watch,
    since: float,
    until: float,
    own: Sequence[tuple[float, int]] = (),
) -> Seen:
    """Sort the answers of both revisions into windows.

    Args:
        points: what the region answered.
        candidate: the revision that is being released.
        stable: the one that it is compared with.
        rules: what is watched.
        since: from when answers count, in seconds since the epoch.
        until: up to when the numbers are complete.
        own: answers of the candidate to Shipway itself: (when, how many). They do not count.
    """
    over = _over(rules)
    points = [p for p in points if p.start >= since and p.end <= until]
    width = max((p.end - p.start for p in points), default=1.0) or 1.0
    windows: defaultdict[int, tuple[Answers, Answers]] = defaultdict(lambda: (Answers(), Answers()))
    mine, theirs = Answers(), Answers()
    for point in points:
        if point.revision in (candidate, stable):
            which = int(point.revision == stable)
            windows[math.ceil(point.end / width)][which].add(point, over)
            (mine, theirs)[which].add(point, over)
    for at, number in own:
        if since <= at <= until:
            fewer = windows[math.ceil(at / width)][0]
            # Only good answers: a check that fails ends the rollout.
            number = min(number, fewer.answers - max(fewer.errors, fewer.slow))
            fewer.answers -= number
            mine.answers -= number
    return Seen(
        candidate=mine,
        stable=theirs,
        errors=[
            (key * width, Window(one.answers, one.errors, other.answers, other.errors))
            for key, (one, other) in sorted(windows.items())
        ],
        slow=[
            (key * width, Window(one.answers, one.slow, other.answers, other.slow))
            for key, (one, other) in sorted(windows.items())
        ],
        compared=sum(one.answers for one, other in windows.values() if other.answers),
    )


class Folds:
    """The evidence of windows that were folded before, so that a look folds only what is new."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[list[tuple[float, Window]], Evidence]] = {}

    def evidence(
        self,
        key: tuple[object, ...],
        windows: list[tuple[float, Window]],
        tolerance: float,
        baseline: float | None = None,
    ) -> Evidence:
        """Return the evidence of windows, oldest first.

        Args:
            key: names the question; with other windows than before, all are folded again.
            windows: (when it ended, the window).
            tolerance: as for `Evidence.after`.
            baseline: likewise.
        """
        key = (*key, tolerance, baseline)
        done, evidence = self._kept.get(key, ([], Evidence()))
        if windows[: len(done)] != done:
            done, evidence = [], Evidence()
        # The newest ones may still grow.
        final, kept = len(done), evidence
        only = [window for _, window in windows]
        for end, bet in bets(only, len(done), alone=baseline is not None):
            evidence = evidence.after(bet, tolerance, baseline=baseline)
            if end <= len(windows) - _GROWING:
                final, kept = end, evidence
        self._kept[key] = windows[:final], kept
        return evidence


def weigh(
    seen: Mapping[str, Seen],
    rules: Watch,
    later: Mapping[str, Later] | None = None,
    folds: Folds | None = None,
) -> Weighed:
    """Weigh what was seen: each region by itself, and all together where there are several.

    Args:
        seen: region -> what was seen during the rollout.
        rules: what is watched.
        later: region -> what was seen since the candidate has all traffic.
        folds: what was weighed before.
    """
    folds = folds or Folds()
    together: list[Evidence] = []
    alone: dict[str, list[Evidence]] = {region: [] for region in seen}
    for name, rule in (("errors", rules.errors), ("slow", rules.latency)):
        if rule is None:
            continue
        tolerance = share(rule.worse_by)
        windows: dict[str, list[tuple[float, Window]]] = {
            region: getattr(one, name) for region, one in seen.items()
        }
        for region, own in windows.items():
            alone[region].append(folds.evidence((name, region), own, tolerance))
        if len(windows) > 1:
            every = sorted((w for own in windows.values() for w in own), key=lambda w: w[0])
            together.append(folds.evidence((name, None), every, tolerance))
        for region, one in (later or {}).items():
            own, promised = getattr(one.seen, name), getattr(one.promised, name)
            alone[region].append(folds.evidence((name, region, "later"), own, tolerance, promised))
    fewest = min((one.compared for one in seen.values()), default=0)
    verdict = judge(
        [*together, *(question for own in alone.values() for question in own)],
        answers=fewest,
        at_least=rules.at_least,
        false_alarms=share(rules.false_alarms),
    )
    by_region = {region: mean(own) for region, own in alone.items()}
    return Weighed(seen=dict(seen), later=dict(later or {}), by_region=by_region, verdict=verdict)


def numbers(revision: str, one: Answers) -> dict[str, str | int | float | None]:
    """Return a revision's answers for JSON; the percentiles are in milliseconds."""
    return {
        "revision": revision,
        "answers": one.answers,
        "errors": one.errors,
        "slow": one.slow,
        **{f"p{percent}": one.percentile(percent) for percent in (50, 95, 99)},
    }


COLUMNS = ["REVISION", "ANSWERS", "5XX", "SLOW", "P50", "P95", "P99"]


def rows(candidate: str, stable: str, seen: Seen) -> list[list[str]]:
    """Return the evidence in one region as the rows of a table: the candidate, then stable."""
    return [_row(candidate, seen.candidate), _row(stable, seen.stable)]


def later_rows(candidate: str, later: Later) -> list[list[str]]:
    """Return the rows about the time since the last step: what was answered, what was promised."""
    promised = later.promised
    most = [f"at most {100 * part:.2f} %" for part in (promised.errors, promised.slow)]
    return [_row(f"{candidate} since", later.seen.candidate), ["promised", "", *most, "", "", ""]]


def _row(name: str, one: Answers) -> list[str]:
    return [
        name,
        f"{one.answers:,}",
        _part(one.errors, one.answers),
        _part(one.slow, one.answers),
        *(_time(one.percentile(percent)) for percent in (50, 95, 99)),
    ]


def _part(number: int, of: int) -> str:
    return f"{number:,} ({100 * number / of:.2f} %)" if of else "-"


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.0f} s"


def share(points: str) -> float:
    """Convert percentage points to a share: "0.5%" to 0.005."""
    return float(points.removesuffix("%")) / 100


def _over(rules: Watch) -> float:
    return _milliseconds(rules.latency.over) if rules.latency else math.inf


def _milliseconds(text: str) -> float:
    return float(text.removesuffix("ms")) if text.endswith("ms") else 1000 * float(text[:-1])
