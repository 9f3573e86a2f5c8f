"""A model of a service: random commands, edits by hand, faults and kills, and what must be true.

The model knows little on purpose: the hold, the tags of others, the shares. A command that fails
may have been done or not; a command that ends with 0 was done.
"""

from __future__ import annotations

import functools
import random
import traceback
from collections.abc import Callable
from typing import Any, TypeVar, cast

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.torture import cells, events, judge
from tests.torture.place import STATES, Ended, Facts, Place

STEPS = (10, 50, 100)
_CALLS = (("GET", "*/services/*"), ("GET", "*/revisions*"), ("PUT", "*/services/*"), ("*", "/v2/*"))
_FAULTS = tuple(
    name
    for name, fault in {**events.ANY, **events.WRITES, **events.READS}.items()
    if fault["name"] not in ("hang", "stale", "trickle", "slow") and not name.endswith("-always")
)
_PATIENCE = 4  # seconds of trouble
_TRACE = 8  # lines
_VERBS = (
    "promote", "promote", "rollback", "hold", "resume", "status", "rollout", "smoke", "history",
    "plan", "deploy", "deliver", "build", "promote --all", "rollback --dry-run",
    "promote --dry-run", "rollout --dry-run",
)  # fmt: skip


Step = TypeVar("Step", bound=Callable[..., None])


def counted(step: Step) -> Step:
    """Count a step, and keep its failure: hypothesis repeats the walk, which may then succeed."""

    @functools.wraps(step)
    def wrapped(self: Model, *args: Any, **kwargs: Any) -> None:
        Model.steps += step.__name__ != "begin"
        if Model.failure:
            raise AssertionError(Model.failure)
        try:
            step(self, *args, **kwargs)
            self.check()
        except Exception as error:
            Model.failure = told(error)
            raise

    return cast(Step, wrapped)


def told(error: BaseException) -> str:
    """Return an error of the latest walk, where it was raised, and the walk's steps."""
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    lines = [f"{kind}{error}"]
    if kind:
        lines += traceback.format_exception(error)[-_TRACE:]
    return "\n".join([*lines, *Model.latest.log])


class Model(RuleBasedStateMachine):
    """One service of `place`.

    Attributes:
        place: Where it is; `run` sets it.
        steps: How many steps were taken.
        failure: The first one.
        latest: The walk that began last.
    """

    place: Place
    steps = 0
    failure = ""
    latest: Model

    def __init__(self) -> None:
        super().__init__()
        Model.latest = self
        self.tags: dict[str, str] = {}
        self.facts: Facts
        self.log: list[str] = []
        self.shifted = False

    @initialize(state=st.sampled_from(STATES))
    @counted
    def begin(self, state: str) -> None:
        self.place.end_faults()
        self.place.restore(state)
        self.facts = self.place.facts()
        self.log.append(state)

    @rule(verb=st.sampled_from(_VERBS))
    @counted
    def command(self, verb: str) -> None:
        """A command, and nothing goes wrong."""
        ended, before, after = self._run(verb)
        said = f"{verb}: exit {ended.code}\n{ended.err[-600:]}"
        assert ended.code in (0, 3) or (verb, ended.code) in (("plan", 4), ("smoke", 2)), said
        if verb in ("hold", "rollback") and ended.code == 0 and before.written != after.written:
            assert after.hold, f"no hold after {said}"
        if verb == "resume" and ended.code == 0:
            assert not after.hold, f"still on hold after {said}"
        if verb == "promote" and ended.code == 0 and not self.shifted:
            share = before.shares.get(before.candidate, 0)
            wanted = next(step for step in STEPS if step > share)
            assert after.shares.get(before.candidate) == wanted, f"{after.shares} after {said}"
        if verb == "rollback" and ended.code == 0:
            assert 100 in after.shares.values(), f"{after.shares} after {said}"

    @rule(
        verb=st.sampled_from(_VERBS), fault=st.sampled_from(_FAULTS),
        call=st.sampled_from(_CALLS), nth=st.integers(1, 4),
    )  # fmt: skip
    @counted
    def command_with_fault(self, verb: str, fault: str, call: tuple[str, str], nth: int) -> None:
        """A command, while the local Cloud Run fails."""
        settings = events.FAULTS[fault]
        method, path = call
        settings = {**settings, "method": method, "path": path, "from": nth}
        if settings.get("done"):
            settings["method"] = "PUT"
        self.place.start_fault(settings)
        self._run(verb, f" with {fault} at {method} {path} #{nth}")

    @rule(
        verb=st.sampled_from(_VERBS), kill=st.sampled_from(events.KILLS),
        after=st.booleans(), nth=st.integers(1, 3), method=st.sampled_from(["GET", "PUT"]),
    )  # fmt: skip
    @counted
    def command_killed(self, verb: str, kill: str, after: bool, nth: int, method: str) -> None:
        """A command that is killed at one of its calls."""
        self._run(verb, f" and {kill} at {method} #{nth}", (kill, method, nth, after))

    @rule(number=st.integers(0, 5))
    @counted
    def edit(self, number: int) -> None:
        """A colleague sets a tag by hand."""
        service = self.place.service()
        serving = [one for one in service["spec"]["traffic"] if one.get("percent")]
        name, tag = serving[0]["revisionName"], f"edit{number}"
        traffic = [one for one in service["spec"]["traffic"] if one.get("tag") != tag]
        lost = [one for one in service["spec"]["traffic"] if one not in traffic]
        traffic += [{**one, "tag": ""} for one in lost if one.get("percent")]
        for one in traffic:
            if not one.get("tag"):
                one.pop("tag", None)
            one.pop("url", None)
        service["spec"]["traffic"] = [*traffic, {"revisionName": name, "tag": tag}]
        self.place.put(service)
        self.tags[tag] = name
        self.facts = self.place.facts()
        self.log.append(f"edit {tag}")

    @rule(to=st.sampled_from(["v1", "v2"]), percent=st.sampled_from([10, 100]))
    @counted
    def shift(self, to: str, percent: int) -> None:
        """A colleague moves traffic by hand."""
        service = self.place.service()
        names = {role: name for name, role in self.place.roles.items()}
        other = "v2" if to == "v1" else "v1"
        tagged = [
            {"revisionName": one["revisionName"], "tag": one["tag"]}
            for one in service["spec"]["traffic"] if one.get("tag")
        ]  # fmt: skip
        shares = [{"revisionName": names[to], "percent": percent}]
        shares += [{"revisionName": names[other], "percent": 100 - percent}] * (percent < 100)
        service["spec"]["traffic"] = [*shares, *tagged]
        self.place.put(service)
        self.facts = self.place.facts()
        self.shifted = True  # the next step is then another one
        self.log.append(f"shift {to} {percent}")

    def _run(
        self, verb: str, how: str = "", kill: tuple[str, str, int, bool] | None = None
    ) -> tuple[Ended, Facts, Facts]:
        """Run a command and check what holds whatever happens to it."""
        name, *options = verb.split()
        words = [*cells.words(self.place, name), *options, "--timeout", f"{_PATIENCE}s"]
        if kill:
            ended, _ = cells.stopped_at(self.place, words, *kill)
        else:
            ended = self.place.ship(*words)
        self.place.end_faults()
        before, after = self.facts, self.place.facts()
        self.facts = after
        self.log.append(f"{verb}{how} -> {ended.code} {self.place.by_role(after.shares)}")
        said = f"{verb}{how}: exit {ended.code}\n{ended.err[-600:]}"
        assert ended.in_time, f"late\n{said}"
        problems = judge.service_problems(self.place, before, after)
        assert not problems, f"{problems}\n{said}"
        assert not judge.BUG.search(ended.out + ended.err), f"bug\n{said}"
        same = before.written == after.written
        assert same or ended.code not in (2, 3), f"untrue {ended.code}\n{said}"
        if name in judge.READERS or "--dry-run" in options:
            assert same, f"written\n{said}"
        if name in ("build", "deploy", "hold", "resume"):
            assert before.shares == after.shares, f"moved\n{said}"
        if before.hold and name in judge.UP:
            assert before.shares == after.shares, f"I7\n{said}"
        if verb == "promote" and not self.shifted:
            share = before.shares.get(before.candidate, 0)
            allowed = {share, next((step for step in STEPS if step > share), 100)}
            assert after.shares.get(before.candidate, 0) in allowed, f"two steps\n{said}"
        if ended.code not in (0, 130) and ended.code > 0 and before.shares != after.shares:
            assert not judge.SAME.search(ended.err), f"untrue words\n{said}"
        return ended, before, after

    def check(self) -> None:
        """Check that nothing of others is lost, and that no user's request failed."""
        for tag, revision in self.tags.items():
            assert self.facts.tags.get(tag) == revision, f"tag {tag} is lost"
        failed, self.place.load.failed = self.place.load.failed, []
        assert not failed, f"a user's request failed: {failed[0]}"


def run(place: Place, seed: int, steps: int, *, per_example: int = 40) -> tuple[int, int, str]:
    """Run the model until it has made so many steps.

    Returns:
        The number of steps, that of the user's requests, and the failure or "".
    """
    asked = place.load.asked
    Model.place, Model.steps, Model.failure = place, 0, ""
    while Model.steps < steps and not Model.failure:
        settings = hypothesis.settings(
            max_examples=max(1, (steps - Model.steps) // per_example),
            stateful_step_count=min(per_example, steps - Model.steps + 1),  # `begin` is one
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
        )
        seeded = hypothesis.seed(random.Random(f"{seed}/{Model.steps}").randrange(1 << 30))
        try:
            run_state_machine_as_test(seeded(Model), settings=settings)
        except Exception as error:  # of no step: hypothesis itself
            Model.failure = Model.failure or told(error)
    return Model.steps, place.load.asked - asked, Model.failure
