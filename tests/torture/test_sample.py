"""A sample of the torture, always the same one. `nox -s torture` runs all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.torture import cells, events, model, races
from tests.torture.place import STATES, Place

_VERBS = ("promote", "rollback", "status")
_WAITS = ("hang", "slow", "trickle", "503-always", "429", events.CLOUD)
pytestmark = pytest.mark.xdist_group("torture")  # they share a place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("torture"))
    yield made
    made.close()


def test_verbs_end_well_whatever_happens_at_a_call(place: Place) -> None:
    """I1 to I8: the exit code and the words are true, and the same command again reaches its goal.

    Each kind of fault takes its turn, at some call of some verb.
    """
    recorded = [cells.record(place, verb, "ten") for verb in _VERBS]
    recordings = {one.verb: one for one, _ in recorded}
    results = [result for _, result in recorded]
    events: set[str] = set()
    for cell in cells.matrix([*recordings.values()], seed=1):
        if cell.event not in events and not cell.event.startswith(_WAITS) and len(events) < 10:
            events.add(cell.event)
            results.append(cells.run(place, cell, recordings[cell.verb]))
    assert {one.cell: one.problems for one in results if one.problems} == {}
    assert sum(one.asked for one in results) > 0


def test_commands_race_with_each_other_and_with_edits_by_hand(place: Place) -> None:
    results = [races.round_of(place, number, seed=1) for number in (0, 3)]
    assert {one.cell: (one.problems, one.said) for one in results if one.problems} == {}


def test_random_commands_and_faults_agree_with_the_model(place: Place) -> None:
    assert model.run(place, seed=1, steps=20, per_example=20)[-1] == ""


@pytest.mark.parametrize("where", ["check", "teardown"])
def test_an_error_that_does_not_come_again_is_told_with_its_steps(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Hypothesis calls a failure flaky if the walk succeeds when it is repeated."""
    errors = [OSError("once")]

    def fail_once(walk: model.Model) -> None:
        if len(walk.log) > 1 and errors:
            raise errors.pop()

    monkeypatch.setattr(model.Model, where, fail_once)
    failure = model.run(place, seed=1, steps=4, per_example=2)[-1]
    assert "OSError: once" in failure
    assert failure.splitlines()[-2] in STATES
