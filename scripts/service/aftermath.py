"""The watch after the last step: roll back what turns out worse, and look for the recovery."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.config.pipelines import seconds
from scripts.errors import Failed, Refused, ShipError
from scripts.release import changes
from scripts.release.changes import Change
from scripts.release.choices import StepsAside
from scripts.release.state import State
from scripts.release.watch import Promise, Weighed, begun, given_all, is_kept, promise, see
from scripts.service.context import Context
from scripts.service.regions import Stables, in_every_region, without_stable
from scripts.service.watch import BASELINE_SECONDS, Watcher, Worse, moment, told

_LOOK_SECONDS = 1.0


def watch_on(
    context: Context,
    watcher: Watcher,
    revision: str,
    bake: float,
    states: dict[str, State],
    stable: Stables,
    look: Callable[[], None],
) -> None:
    """Watch a release that has all traffic, for its bake and as much longer as the rules say.

    Args:
        context: the call.
        watcher: the rollout's watch.
        revision: the release.
        bake: the seconds of its last step, at least.
        states: the service in each region; `look` keeps it up to date.
        stable: region -> what served before.
        look: reads every region, and checks the revision now and then.

    Raises:
        Failed: the release turned out worse. It was rolled back, with a hold.
    """
    # A service's first release has nothing to be compared with, or to go back to.
    longer = seconds(watcher.rules.after) if any(stable.values()) else 0.0
    ends = [
        had_all + max(bake, longer)
        for state in states.values()
        if (had_all := moment(given_all(state, revision)))
    ]
    if not ends or context.google.now() >= max(ends):
        return
    with context.progress.step("watch", f"{revision} has all traffic") as step:
        trouble, found = "", None
        while context.google.now() < max(ends):
            time.sleep(_LOOK_SECONDS)
            try:
                look()
                found = watcher.look(states, stable)
            except Worse as error:
                step.done("worse", ok=False)
                raise _rolled_back(context, watcher, revision, states, stable, error) from error
            except (StepsAside, Refused):
                step.done("ended: another release or a hold has come")
                return
            except ShipError as error:
                # What cannot be read is no failure of the release.
                if error.message != trouble:
                    trouble = error.message
                    context.progress.line(f"note: not seen: {trouble}")
                continue
            step.still(f"{revision} has all traffic{f'; {told(found)}' if found else ''}")
        step.done(f"{revision} {_ended(found)} after it got all traffic")


def _ended(found: Weighed | None) -> str:
    """Return what the last look says about the time since the last step."""
    if found is None or not found.later:
        return "could not be compared"
    answers = min(later.seen.candidate.answers for later in found.later.values())
    clear = answers and found.verdict.verdict == "no worse"
    return "was no worse" if clear else "has too few answers to be compared"


def _rolled_back(
    context: Context,
    watcher: Watcher,
    revision: str,
    states: dict[str, State],
    stable: Stables,
    error: Worse,
) -> Failed:
    """Roll a release back, with a hold, and watch whether users' answers recover."""
    before = dict(states)
    if not any(stable.values()):
        return _failed(error, "there is no other revision to roll back to", error.hint or "")
    actor = msgspec.structs.replace(context.actor(), why=error.message)
    context.google.patience.use_kept()

    def roll_back(region: CloudRun) -> tuple[State, State]:
        target, state = stable[region.region], before[region.region]
        if target is None:
            return state, state

        def back(read: State) -> Change:
            if read.candidate != revision:  # a newer release keeps its own traffic
                return changes.withdraw(read, revision, target, actor)
            return changes.roll_back(read, target, actor, hold=True, verb="rollback")

        return region.change(back, revisions=[revision, target])

    try:
        acted = in_every_region(context, roll_back)
    except ShipError as second:
        return _failed(error, f"and it could not be rolled back: {second.message}",
                       f"./ship rollback {context.where}")  # fmt: skip
    if acted.errors:
        reasons = "; ".join(f"{region}: {e.message}" for region, e in acted.errors.items())
        return _failed(error, f"and it could not be rolled back everywhere: {reasons}",
                       f"./ship rollback {context.where}")  # fmt: skip
    context.progress.line(f"rolled back, and on hold: {error.message}")
    ended = _recovery(context, watcher, revision, before, stable)
    if alone := without_stable(stable):
        ended += f"; {alone}"
    return _failed(error, ended, f"Once it is fixed: ./ship resume {context.where}")


def _failed(error: Failed, more: str, hint: str) -> Failed:
    return Failed(
        f"{error.message}; {more}", hint, evidence=error.evidence, service_says=error.service_says
    )


def _recovery(
    context: Context,
    watcher: Watcher,
    revision: str,
    before: dict[str, State],
    stable: Stables,
) -> str:
    """Look at stable's answers until they are as they were; return what was seen, in words."""
    rules = watcher.rules
    began, since = time.monotonic(), context.google.now()
    try:
        promised = watcher.promised or _promised(context, watcher, revision, before, stable)
    except ShipError as error:
        return f"rolled back; whether that helped is not known: {error.message}"
    if not promised:
        return "rolled back; whether that helped is not known, because too little was seen before"
    patience = seconds(rules.patience) + seconds(rules.delay)
    with context.progress.step("recover", "users' answers after the rollback") as step:
        while (past := time.monotonic() - began) < patience:
            time.sleep(min(watcher.every, patience - past))
            try:
                seen = {}
                for region in promised:
                    points, until, _ = watcher.answered.read(region, since)
                    other = stable[region] or ""
                    found = see(points, revision, other, rules=rules, since=since, until=until)
                    seen[region] = found.stable
            except ShipError as error:
                step.still(f"not seen: {error.message}")
                continue
            fewest = min(one.answers for one in seen.values())
            step.still(f"{fewest:,} answers after the rollback")
            if fewest >= rules.at_least and all(
                is_kept(one, rules, promised[region]) for region, one in seen.items()
            ):
                took = f"{time.monotonic() - began:.0f} s"
                step.done(f"users' answers are as before, after {took}")
                return f"rolled back, and users' answers are as before again, after {took}"
        step.done("users' answers are not as before", ok=False)
    return (
        f"rolled back, but after {patience / 60:.0f} min users' answers are not as before: the"
        " release was probably not the cause. The hold stays; someone has to look"
    )


def _promised(
    context: Context,
    watcher: Watcher,
    revision: str,
    before: dict[str, State],
    stable: Stables,
) -> dict[str, Promise]:
    """Return what stable's answers were like before the rollout: region -> its promise."""
    found = {}
    for region, state in before.items():
        other = stable[region]
        began, had_all = moment(begun(state, revision)), moment(given_all(state, revision))
        if other is None or began is None or had_all is None:
            continue
        start = began - BASELINE_SECONDS
        points = watcher.answered.read(region, start).points
        if kept := promise(points, other, watcher.rules, had_all):
            found[region] = kept
    return found
