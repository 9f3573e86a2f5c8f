"""Any words after ./ship end in one clear error, and bad usage changes no file."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from scripts.command import options, verbs
from scripts.errors import UsageError
from tests.fuzz import fuzz
from tests.fuzz.changes import texts
from tests.scripts.conftest import Project

VERBS = [verb.name for verb in verbs.VERBS]
READING = ("status", "history", "plan", "logs", "smoke")
ENDLESS = ("--watch", "--follow", "-f")
VALUES = [
    "50", "101", "0", "-1", "²", "9" * 5000, "90s", "1e9s", "local", "production", "app", "table",
    "json", "HEAD", "--", "-", "--output=x", "HEAD~99999999999999999999", "@{u}", ":/x", "a" * 40,
    "refs/heads/main", "NAME=VALUE", "=", "\udcff", "\x1b[2J", "acme/app", "sha256:" + "0" * 64,
    "../../x", "/etc/passwd", "%(default)s", "%s", "@/etc/passwd", "*",
]  # fmt: skip
# What a command line can hold: no NUL, and of surrogates only bytes that are not UTF-8.
words = st.one_of(
    st.sampled_from(VALUES),
    texts.map(lambda text: text.replace("\0", "").encode("utf-8", "replace").decode()),
)


def flags(verb: str) -> list[str]:
    """Return the flags of a verb, from its own table."""
    module = importlib.import_module(f"scripts.{verb}")
    notes: list[Any] = [field.type.__metadata__[0] for field in structs.fields(module.Options)]
    return [note.flag for note in notes if getattr(note, "flag", None)]


@st.composite
def lines(draw: st.DrawFn, among: list[str]) -> list[str]:
    """Return a verb and some of its flags with values, right and wrong."""
    verb = draw(st.sampled_from(among))
    known = ["--debug", "--help", "--nonsense", *flags(verb)]
    line = [verb]
    for _ in range(draw(st.integers(0, 4))):
        flag, value = draw(st.sampled_from(known)), draw(words)
        shapes = ([flag, value], [f"{flag}={value}"], [flag], [value])
        line += draw(st.sampled_from(shapes))
    return line


def is_usable(line: list[str]) -> bool:
    """Return whether a verb accepts its options."""
    verb, *rest = line
    module = importlib.import_module(f"scripts.{verb}")
    try:
        options.parse(verb, module.Options, module.__doc__, rest)
    except UsageError:
        return False
    except SystemExit as asked:  # --help
        return asked.code == 0
    return True


@fuzz(60, long=8000)
@given(line=lines(VERBS))
def test_options_are_read_or_refused(line: list[str]) -> None:
    is_usable(line)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, local_cloud_run: Any) -> Project:
    made = Project(tmp_path_factory.mktemp("fuzz") / "repository", local_cloud_run, "svc-line")
    made.commit()
    return made


def files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder.parent)): path.lstat().st_mtime_ns
        for path in folder.parent.rglob("*")
        if ".git" not in path.parts and ".shipway" not in path.parts
    }


def run(project: Project, line: list[str], codes: tuple[int, ...]) -> None:
    before = files(project.folder)
    ended = project.ship(*line, HOME=str(project.folder.parent))
    assert ended.returncode in codes, ended.stderr
    if "--debug" not in line:
        assert "Traceback" not in ended.stderr
    assert "this should not happen" not in ended.stderr, ended.stderr
    # What was typed may look like an error's beginning.
    errors = [one for one in ended.stderr.splitlines() if one.startswith("ship: ")]
    assert len(errors) == (1 if ended.returncode in (1, 2, 3) else 0), ended.stderr
    assert not any("\x1b" in text or "\x9b" in text for text in (ended.stdout, ended.stderr))
    if ended.stdout and ended.returncode == 2:
        assert set(json.loads(ended.stdout)) == {"error"}
    assert files(project.folder) == before


@fuzz(4, long=80)
@given(line=lines(VERBS).filter(lambda line: not is_usable(line)))
def test_bad_usage_is_one_error_and_changes_nothing(project: Project, line: list[str]) -> None:
    run(project, line, (2,))


@fuzz(4, long=80)
@given(line=lines([*READING]).filter(lambda line: not {*ENDLESS} & {*line} and is_usable(line)))
def test_a_verb_that_reads_ends_in_one_error(project: Project, line: list[str]) -> None:
    run(project, line, (0, 1, 2, 3, 4))


@pytest.mark.skipif(os.name != "posix", reason="bytes on the command line are POSIX's")
@pytest.mark.parametrize("verb", ["", "\udcff", "__main__", "command", "../x", "-", "--", "help"])
def test_a_verb_that_is_none_is_refused(project: Project, verb: str) -> None:
    run(project, [verb, "x"], (0, 2))
