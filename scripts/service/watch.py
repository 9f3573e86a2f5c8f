"""Watch a rollout: read what users were answered in every region, and judge the candidate."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

import msgspec

from scripts.cloud import request_log
from scripts.cloud.logs import Log
from scripts.command import run_page
from scripts.command.record import Watched
from scripts.command.tables import Table, plain_table
from scripts.config.formats import Watch
from scripts.config.pipelines import seconds
from scripts.errors import Failed, ShipError
from scripts.release.state import State
from scripts.release.watch import (
    COLUMNS,
    Folds,
    Later,
    Promise,
    Weighed,
    begun,
    given_all,
    later_rows,
    numbers,
    promise,
    rows,
    see,
    weigh,
)  # fmt: skip
from scripts.service.answered import Answered
from scripts.service.checks import USER_AGENT
from scripts.service.context import Context
from scripts.service.regions import Stables

OwnAnswers = dict[str, list[tuple[float, int]]]
"""Region -> answers to Shipway's own requests: (when, in seconds since the epoch; how many)."""
BASELINE_SECONDS = 3600.0  # before a rollout that say what stable's answers are like
_MOST_CHECKS = 5000  # that are read from the log
_EVERY = 60.0 / request_log.LOOKS_A_MINUTE  # seconds between two reads
_AT_MOST_BEHIND = 5.0  # looks in the time that numbers need to arrive, where they arrive at once


class Worse(Failed):
    """A release is worse than what served before: by users' answers, or by its own checks."""


class Watcher:
    """The watch of one rollout, in every region where it can be compared with stable.

    Args:
        context: the call.
        rules: what is watched.
        revision: the candidate.
    """

    def __init__(self, context: Context, rules: Watch, revision: str) -> None:
        self.rules = rules
        self.answered = Answered(context, rules)
        self._context = context
        self._revision = revision
        self._own: OwnAnswers = {}
        self._folds = Folds()
        self._last: Weighed | None = None
        self._taken_up = not self.answered.has_checks
        self._made = context.google.now()
        self._trouble = ""
        self._read_at = -_EVERY
        self._is_slow = False
        at_once = not context.record.at_google
        self.every = min(_EVERY, seconds(rules.delay) / _AT_MOST_BEHIND) if at_once else _EVERY

    @property
    def promised(self) -> dict[str, Promise]:
        """Region -> what the release must keep since its last step, as far as that was seen."""
        later = self._last.later if self._last else {}
        return {region: one.promised for region, one in later.items()}

    def asked(self, region: str, number: int) -> None:
        """Note requests of Shipway's own that the candidate just answered: they do not count."""
        self._own.setdefault(region, []).append((self._context.google.now(), number))

    def look(self, states: dict[str, State], stable: Stables) -> Weighed | None:
        """Read what is new, and judge; None while there is nothing to compare.

        Args:
            states: the service in each region.
            stable: region -> what the candidate is compared with there.

        Raises:
            Failed: the candidate is worse; the evidence is in the error.
        """
        if time.monotonic() - self._read_at < self.every:
            return self._last
        self._read_at = time.monotonic()
        try:
            if not self._taken_up:
                self._take_up(states)
            found = weighed(
                self._context, self.answered, self._revision, states, stable,
                self._own, self._folds,
            )  # fmt: skip
        except ShipError as error:
            # What cannot be read is neither healthy nor a failure.
            if error.message != self._trouble:
                self._trouble = error.message
                self._context.progress.line(f"note: users' answers are not seen: {error.message}")
            return self._unclear()
        self._note_slow(found)
        self._last = found
        if found:
            shown = show(self._context, found, self._revision, states, stable)
            self._context.record.watched = shown
            if found.verdict.verdict == "worse":
                raise self._worse(found, shown)
        return found

    def _unclear(self) -> Weighed:
        """Return what was seen last. Its verdict is old, so it says nothing about now."""
        last = self._last or weigh({}, self.rules)
        verdict = msgspec.structs.replace(last.verdict, verdict="unclear")
        self._last = msgspec.structs.replace(last, verdict=verdict)
        return self._last

    def _note_slow(self, found: Weighed | None) -> None:
        """Say once if there are more answers than can be read."""
        if self._is_slow or not found or not self._last or found.behind <= self._last.behind:
            return
        if self._last.behind:
            self._is_slow = True
            self._context.progress.line(
                "note: there are more answers than the request log can be read for,"
                f" {request_log.answers_a_minute():,} a minute in all regions. With"
                " `source: metrics`, any number can be watched"
            )

    def _take_up(self, states: dict[str, State]) -> None:
        """Add the checks of the watch that this one takes up, if it does."""
        before = self._made - 1  # the times of events have whole seconds
        begins = [moment(begun(state, self._revision)) for state in states.values()]
        if not any(since and since < before for since in begins):
            self._taken_up = True
            return
        # The log is read in the place of the next look.
        self._read_at += self.every
        for region, known in own_answers(self._context, self._revision, states).items():
            mine = self._own.setdefault(region, [])
            first = min((at for at, _ in mine), default=self._context.google.now())
            mine += [(at, number) for at, number in known if at < first - 1]
        self._taken_up = True

    def _worse(self, found: Weighed, shown: Watched) -> Worse:
        verdict = found.verdict
        return Worse(
            f"{self._revision} answers its users worse than stable: the evidence is"
            f" {evidence(verdict.evidence)}, and {verdict.bar:.0f} is enough",
            f"To see its log: ./ship logs {self._context.where} --revision {self._revision}",
            service_says=lines(shown),
        )


def weighed(
    context: Context,
    answered: Answered,
    revision: str,
    states: dict[str, State],
    stable: Stables,
    own: OwnAnswers | None = None,
    folds: Folds | None = None,
) -> Weighed | None:
    """Read what users were answered since the rollout began, in every region, and weigh it.

    Args:
        context: the call.
        answered: where it is read, and what is watched.
        revision: the candidate.
        states: the service in each region.
        stable: region -> what the candidate is compared with there.
        own: the candidate's answers to Shipway itself; read from the request log unless given.
        folds: what was weighed before.

    Returns:
        None where the candidate has no traffic yet, or nothing to be compared with.
    """
    begins = {
        region: since
        for region, state in states.items()
        if stable.get(region) and (since := moment(begun(state, revision)))
    }
    if not begins:
        return None
    rules = answered.rules
    if not answered.has_checks:
        own = {}
    elif own is None:
        own = own_answers(context, revision, states)
    seen, later, behind = {}, {}, 0.0
    for region, since in begins.items():
        other, had_all = stable[region] or "", moment(given_all(states[region], revision))
        # Only what comes after the last step is compared with the hour before the rollout.
        first = since - BASELINE_SECONDS if had_all else since
        found, until, late = answered.read(region, first)
        behind = max(behind, late)
        look = partial(see, found, revision, other, rules=rules, own=own.get(region, ()))
        warm = since + seconds(rules.warm_up)
        seen[region] = look(since=warm, until=min(until, had_all or until))
        promised = promise(found, other, rules, had_all) if had_all else None
        if had_all and promised:
            now = look(since=max(warm, had_all), until=until)
            later[region] = Later(seen=now, promised=promised)
    result = weigh(seen, rules, later, folds)
    if not behind:
        return result
    verdict = result.verdict
    if verdict.verdict == "no worse":  # as far as it was read
        verdict = msgspec.structs.replace(verdict, verdict="unclear")
    return msgspec.structs.replace(result, verdict=verdict, behind=behind)


def own_answers(context: Context, revision: str, states: dict[str, State]) -> OwnAnswers:
    """Read from the request log what a revision answered to smoke checks since its rollout began.

    They are in the same numbers as users' requests, but only the log tells who asked.
    """
    began = min(
        (b for state in states.values() if (b := moment(begun(state, revision)))), default=None
    )
    if began is None:
        return {}
    log = Log(context.google, context.pipeline, revision=revision, user_agent=USER_AGENT)
    found: OwnAnswers = {}
    for entry in log.newest(datetime.fromtimestamp(began, UTC), _MOST_CHECKS):
        at = datetime.fromisoformat(entry["timestamp"]).timestamp()
        found.setdefault(entry["resource"]["labels"]["location"], []).append((at, 1))
    return found


def moment(at: str | None) -> float | None:
    """Return a time of the service's history in seconds since the epoch; None for None."""
    return datetime.fromisoformat(at).timestamp() if at else None


def show(
    context: Context,
    found: Weighed,
    revision: str,
    states: dict[str, State],
    stable: Stables,
) -> Watched:
    """Return what was seen as it is shown: candidate and stable side by side, with links.

    Args:
        context: the call.
        found: what was seen.
        revision: the candidate.
        states: the service in each region.
        stable: region -> what the candidate is compared with there.
    """
    several = len(found.seen) > 1
    cells = [
        [region, *row]
        for region, seen in found.seen.items()
        for row in (
            *rows(revision, stable[region] or "", seen),
            *(later_rows(revision, found.later[region]) if region in found.later else []),
        )
    ]
    links = {}
    for region in found.seen:
        since = begun(states[region], revision) or ""
        for what, address in (("log", run_page.logs_url), ("metrics", run_page.metrics_url)):
            if url := address(context.record, region, revision, since, context.now()):
                links[f"{what} of {revision}{f' in {region}' if several else ''}"] = url
    verdict = found.verdict
    return Watched(
        said=f"{verdict.verdict}: {told(found)}",
        columns=["REGION", *COLUMNS] if several else COLUMNS,
        rows=cells if several else [row[1:] for row in cells],
        links=links,
        data={
            "verdict": verdict.verdict,
            "evidence": verdict.evidence,
            "bar": verdict.bar,
            "missing": verdict.missing,
            "behind_seconds": round(found.behind),
            "regions": {
                region: {
                    "candidate": numbers(revision, seen.candidate),
                    "stable": numbers(stable[region] or "", seen.stable),
                    "evidence": found.by_region[region],
                    **(
                        {"at_100_percent": numbers(revision, later.seen.candidate)}
                        if (later := found.later.get(region))
                        else {}
                    ),
                }
                for region, seen in found.seen.items()
            },
        },
    )


def lines(shown: Watched) -> list[str]:
    """Return what was seen as the lines of a table, and the links."""
    table = plain_table(Table(columns=shown.columns, rows=shown.rows)) if shown.rows else ""
    return [*table.splitlines(), *(f"{text}: {url}" for text, url in shown.links.items())]


def told(found: Weighed) -> str:
    """Return what was seen so far in one line."""
    answered = {region: seen.compared for region, seen in found.seen.items()}
    since = {region: later.seen.candidate.answers for region, later in found.later.items()}
    shown = since or answered
    fewest = min(shown, key=shown.__getitem__, default="")
    where = f" in {fewest}" if len(found.seen) > 1 else ""
    said = f"{shown.get(fewest, 0):,} answers{where}{' at 100 %' if since else ''}"
    verdict = found.verdict
    if verdict.missing:
        said += f", {verdict.missing:,} are missing"
    if fewest and (alone := found.seen[fewest].candidate.answers - answered[fewest]):
        said += f" ({alone:,} more while stable answered nothing)"
    said += f"; evidence against it {evidence(verdict.evidence)} of {verdict.bar:.0f}"
    if found.behind:
        said += f"; the log of the last {found.behind:,.0f} s is not read yet"
    return said


def evidence(value: float) -> str:
    """Return the evidence as people read it: 0.3, 12, more than 1,000,000."""
    if value > 1e6:
        return "more than 1,000,000"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
