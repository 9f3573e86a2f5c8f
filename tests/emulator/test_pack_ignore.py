"""The files that `.dockerignore` leaves out of the build context."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emulator.builds.errors import UsageError
from emulator.builds.packing.dockerignore import Ignore, read, translate, walk


@pytest.mark.parametrize(
    ("lines", "path", "excluded"),
    [
        (["*.md"], "README.md", True),
        (["*.md"], "docs/README.md", False),
        (["**/*.md"], "README.md", True),
        (["**/*.md"], "a/b/README.md", True),
        (["*/temp*"], "a/temporary.txt", True),
        (["*/temp*"], "a/b/temporary.txt", False),
        (["temp?"], "tempa", True),
        (["temp?"], "temp", False),
        (["docs"], "docs/a/b.txt", True),
        (["/docs/"], "docs/a/b.txt", True),
        (["./docs"], "docs", True),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*", "!web/"], "web/a/b.py", False),
        (["*", "!web/"], "other/a.py", True),
        (["*", "!web/", "**/__pycache__/"], "web/a/__pycache__/b.pyc", True),
        (["*", "!web/", "**/*.py[cod]"], "web/x.pyc", True),
        (["**/.*"], "web/.secret", True),
        (["# a comment", "", " spaced "], "spaced", True),
        (["[a-c]x"], "bx", True),
        (["[^a-c]x"], "bx", False),
        (["\\*"], "*", True),
        (["\\*"], "a", False),
        (["a/**/z"], "a/z", True),
        (["a/**"], "a/b/c", True),
        (["."], "a", False),
    ],
)
def test_patterns(lines: list[str], path: str, excluded: bool) -> None:
    assert Ignore(lines).excludes(path) is excluded


def test_walk_lets_in_by_name(tmp_path: Path) -> None:
    for path in ("web/a.py", "web/.env", "node_modules/x/y.js", "key.pem", "keep/deep/in.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    ignore = Ignore(["*", "!web", "!keep/deep/*.txt", "**/.*"])
    found = [path for path, _ in walk(tmp_path, ignore)]
    assert found == ["keep/deep/in.txt", "web", "web/a.py"]


def test_excluded_folders_are_not_read(tmp_path: Path) -> None:
    assert not Ignore(["*", "!web/**/x"]).may_include_below("node_modules")
    assert Ignore(["*", "!web/**/x"]).may_include_below("web/a")
    assert Ignore(["*", "!**/x"]).may_include_below("node_modules")
    assert Ignore(["*", "!a/b/c"]).may_include_below("a")


def test_the_dockerfiles_own_rules_win(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("a\n")
    dockerfile = tmp_path / "Dockerfile"
    assert read(tmp_path, dockerfile).excludes("a")
    (tmp_path / "Dockerfile.dockerignore").write_text("b\n")
    assert not read(tmp_path, dockerfile).excludes("a")
    assert read(tmp_path, dockerfile).excludes("b")


def test_a_file_that_is_no_text_is_one_error(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_bytes(b"\xed\xa0\x80")
    with pytest.raises(UsageError, match=r"\.dockerignore: cannot be read"):
        read(tmp_path, tmp_path / "Dockerfile")


@pytest.mark.parametrize("pattern", ["**/a/" * 12 + "b", "**/" * 12 + "b", "**a" * 12 + "b"])
def test_many_double_stars_take_no_time(pattern: str) -> None:
    """Tried one by one, the places for twelve would take longer than the suite."""
    path = "/".join("a" * 60)
    assert not re.fullmatch(translate(pattern), path)
    assert re.fullmatch(translate(pattern), f"{path}{'' if pattern.endswith('ab') else '/'}b")
