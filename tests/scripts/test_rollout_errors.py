"""Whatever exception ends a rollout, known or not, users get what they got before (I5)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from scripts import rollout
from scripts.command import failure
from scripts.command.call import Call
from scripts.errors import ShipError
from scripts.service.context import Context
from scripts.service.rollout import rollout as roll_out
from tests.conftest import ROOT
from tests.scripts.conftest import Project

# Runs a command in a Python in which one function raises.
BROKEN = """
import sys
from scripts.__main__ import main
from scripts.{module} import {name}

def broken(*arguments, real={name}.{function}, calls=[], **keywords):
    calls.append(arguments)
    if {when}:
        raise RecursionError("injected")
    return real(*arguments, **keywords)

{name}.{function} = broken
sys.exit(main(sys.argv[1:]))
"""
ERRORS = [RecursionError, MemoryError, KeyError, ValueError, OSError, BrokenPipeError, UnicodeError]
# What a rollout consists of: what these call raises through them.
_CODE = tuple(
    str(ROOT / "scripts" / part)
    for part in ("service", "cloud/cloud_run.py", "release/changes.py", "command/progress.py")
)


@contextmanager
def entering(seen: Callable[[str], None]) -> Iterator[None]:
    """Call `seen` with the name of each function of a rollout as it is entered.

    What it raises is raised there.
    """

    def profile(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(_CODE) and frame.f_code.co_name[0] != "<":
            seen(f"{Path(file).stem}.{frame.f_code.co_qualname}")

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def context(project: Project, call: Call) -> Context:
    return Context(rollout.Options(services=(project.name,), env="local"), call)


def test_raised_from_anywhere_the_traffic_goes_back(candidate: Project) -> None:
    new, old = (candidate.revision(sha) for sha in candidate.git("log", "--format=%H").split())
    local = candidate.pipeline / "local.yaml"
    local.write_text(local.read_text().replace("[10, 50, 100]", "[50, 100]"))

    calls: list[str] = []
    with entering(calls.append):
        roll_out(context(candidate, Call("rollout", candidate.folder)), new, None)
    assert candidate.shares() == {new: 100}
    candidate.done("rollback", "--no-hold")
    candidate.done("deploy")  # its tag went with the rollback
    # From the first share that users got, to the end.
    first = calls.index("rollout._Rollout._watch")
    places = sorted({name: calls.index(name, first) for name in calls[first:]}.items())
    # The traffic is where it should be by then, and stays.
    places = [(name, place) for name, place in places if not name.endswith(".conclude")]
    assert len(places) > 30, (places, "one place for each function")

    for number, (name, place) in enumerate(places):
        error = ERRORS[number % len(ERRORS)]
        left = place

        def count(_: str, error: type[Exception] = error) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise error("injected")

        call = Call("rollout", candidate.folder)
        with entering(count), pytest.raises(ShipError) as raised:
            roll_out(context(candidate, call), new, None)
        assert candidate.shares() == {old: 100}, name
        ended = failure.complete(raised.value, call.record)
        assert ended.exit_code == 1, name
        assert f"traffic was moved back: {old} 100 %" in ended.message, name


def broken(
    project: Project, *arguments: str, at: tuple[str, str, str], when: str
) -> subprocess.CompletedProcess[str]:
    """Type a command for which a function of scripts/ raises."""
    module, name, function = at
    code = BROKEN.format(module=module, name=name, function=function, when=when)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project.folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_an_unknown_error_is_reported_as_a_bug(candidate: Project) -> None:
    before = candidate.shares()
    for words in ([], ["--debug"]):
        ended = broken(
            candidate, "rollout", *words, at=("service", "checks", "run"), when="len(calls) == 2"
        )
        assert ended.returncode == 1, ended.stderr
        assert "this should not happen: RecursionError: injected; traffic was" in ended.stderr
        assert "-> --debug shows where; please report it" in ended.stderr
        assert ("Traceback" in ended.stderr) == bool(words)
        assert ("in broken" in ended.stderr) == bool(words)
        assert candidate.shares() == before


def test_an_unknown_error_in_one_region_keeps_no_other_from_a_rollback(candidate: Project) -> None:
    local = candidate.pipeline / "local.yaml"
    local.write_text(local.read_text().replace("us-central1]", "us-central1, europe-west1]"))
    candidate.commit()
    candidate.done("deliver")
    newest = candidate.commit()
    candidate.done("deliver")
    ended = broken(
        candidate, "rollback",
        at=("cloud.cloud_run", "CloudRun", "change"), when="arguments[0].region == 'us-central1'",
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert "FAILED in us-central1: this should not happen: RecursionError: injected" in ended.stdout
    first, second = candidate.done("status")["regions"]
    percents = [
        {row["revision"]: row["percent"] for row in region["revisions"] if row["percent"]}
        for region in (first, second)
    ]
    assert percents[0] == {candidate.revision(newest): 100}
    assert candidate.revision(newest) not in percents[1]
