"""Dockerfiles: their syntax, words, variables and errors."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.builds.errors import UsageError
from emulator.builds.packing import shellwords
from emulator.builds.packing.dockerfile import DockerfileError, parse, read

TEXT = """\
# syntax=docker/dockerfile:1
ARG VERSION=3.13
# a comment
FROM python:${VERSION}-slim AS Dependencies

RUN --mount=type=cache,target=/c --mount=type=bind,target=/b pip install \\
    # a comment within
    --target=/deps \\

    flask
from scratch
CMD ["python", "-m", "web"]
ENTRYPOINT python -m web
"""


def test_stages_and_lines() -> None:
    dockerfile = parse(TEXT, "app/Dockerfile")
    assert [i.text for i in dockerfile.arguments] == ["ARG VERSION=3.13"]
    first, second = dockerfile.stages
    assert (first.base, first.name, first.start.line) == (
        "python:${VERSION}-slim",
        "dependencies",
        4,
    )
    (run,) = first.instructions
    assert (run.name, run.line) == ("RUN", 6)
    assert run.flags == (("mount", "type=cache,target=/c"), ("mount", "type=bind,target=/b"))
    assert run.words({}) == ["pip", "install", "--target=/deps", "flask"]
    assert (second.base, second.name) == ("scratch", None)
    command, entrypoint = second.instructions
    assert command.exec_form() == ["python", "-m", "web"]
    assert entrypoint.exec_form() is None
    assert (entrypoint.value, entrypoint.line) == ("python -m web", 13)


def test_another_escape_character() -> None:
    dockerfile = parse("# escape=`\nFROM x\nENV A=C:\\dir `\n  B=2\n", "Dockerfile")
    (env,) = dockerfile.stages[0].instructions
    assert env.pairs({}) == {"A": "C:\\dir", "B": "2"}


def test_an_unfinished_continuation_at_the_end() -> None:
    (stage,) = parse("FROM x\nRUN pip \\\n", "Dockerfile").stages
    assert stage.instructions[0].value == "pip"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM x\nRUNN y", "app/Dockerfile:2: RUNN is not a Dockerfile instruction"),
        ("RUN y", "app/Dockerfile:1: RUN y: only ARG may come before the first FROM"),
        ("# nothing\n", "app/Dockerfile:1: there is no FROM"),
        ("FROM x y", "app/Dockerfile:1: FROM x y: this should read FROM image, or FROM image AS"),
        ("FROM x\n\nENV", "app/Dockerfile:3: ENV : a value is missing"),
        (
            "FROM x\nRUN <<EOF\nls\n",
            "app/Dockerfile:2: RUN <<EOF: the here-document EOF has no end",
        ),
    ],
)
def test_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text, "app/Dockerfile")
    assert caught.value.message.startswith(message)


def test_no_dockerfile(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="app/Dockerfile: there is no such Dockerfile"):
        read(tmp_path / "Dockerfile", "app/Dockerfile")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("plain", "plain"),
        ("$A", "one"),
        ("${A}x$A-y", "onexone-y"),
        ("'$A'", "$A"),
        ('"$A b"', "one b"),
        ("\\$A", "$A"),
        ('"\\$A\\n"', "$A\\n"),
        ("a\\ b", "a b"),
        ("$", "$"),
        ("$NONE", ""),
        ("${NONE:-d}", "d"),
        ("${NONE:-${A}}", "one"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:-d}", "one"),
        ("${A:+set}", "set"),
        ("${EMPTY:+set}", ""),
        ("${EMPTY+set}", "set"),
        ("${A:?gone}", "one"),
    ],
)
def test_variables(word: str, value: str) -> None:
    assert shellwords.expand(word, {"A": "one", "EMPTY": ""}) == value


@pytest.mark.parametrize("word", ["${A", "'a", '"a', "${}", "${A#x}", "${NONE:?must be set}"])
def test_malformed_variables(word: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        shellwords.expand(word, {"A": "one"})
    (stage,) = parse(f"FROM x\nUSER {word}", "Dockerfile").stages
    with pytest.raises(DockerfileError, match="Dockerfile:2: USER"):
        stage.instructions[0].expand(word, {})


def test_pairs() -> None:
    (stage,) = parse("FROM x\nENV A=1 B='2 3' C=$A\nENV OLD form here\nENV BAD=1 x", "D").stages
    first, old, bad = stage.instructions
    assert first.pairs({"A": "before"}) == {"A": "1", "B": "2 3", "C": "before"}
    assert old.pairs({}) == {"OLD": "form here"}
    with pytest.raises(DockerfileError, match=r"D:4: .* x is not of the form KEY=value"):
        bad.pairs({})


def test_words_keep_their_quotes_and_escapes() -> None:
    assert shellwords.split('a\\ b  \'c d\'\t"e \\" f" g\\') == [
        "a\\ b",
        "'c d'",
        '"e \\" f"',
        "g\\",
    ]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="'\x00"), min_size=1)))
def test_quoted_words_come_back(words: list[str]) -> None:
    text = " ".join(f"'{word}'" for word in words)
    assert [shellwords.expand(word, {}) for word in shellwords.split(text)] == words


@given(st.text(alphabet="a$ {}:-'\"\\A\n"))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Neither a crash nor an endless loop: words, or ValueError."""
    with contextlib.suppress(ValueError):
        for word in shellwords.split(text):
            shellwords.expand(word, {"A": "1"})
