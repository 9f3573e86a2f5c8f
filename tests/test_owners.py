"""The owners of files, and the version of this repository."""

from __future__ import annotations

import re
import subprocess

import pytest

from scripts.errors import UsageError
from scripts.template import owners, record, version
from scripts.template.record import Record
from scripts.upgrade import changelog
from tests.conftest import ROOT

OWNERS = owners.current()
in_the_template = pytest.mark.skipif(
    (ROOT / record.FILE).exists(), reason="left out: a fork adds and deletes files as it likes"
)


def tracked() -> list[str]:
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def unowned(names: list[str]) -> list[str]:
    return [name for name in names if OWNERS.name_for(name) is None]


@in_the_template
def test_each_file_has_one_owner() -> None:
    """Not two: the longest name decides, and no name is in two lists."""
    assert unowned(tracked()) == []
    assert unowned(["Makefile", "app/main.py"]) == ["Makefile"]


@in_the_template
def test_each_name_is_that_of_a_file() -> None:
    used = {OWNERS.name_for(name) for name in tracked()}
    assert set(OWNERS.names) - used == set()


def test_the_docs_name_what_a_fork_may_edit() -> None:
    page = (ROOT / "docs/upgrade.md").read_text()
    [table] = re.findall(r"(?m)(?:^\|.*\n)+", page)
    rows = zip(("fork", "shared", "shipway"), table.splitlines()[2:], strict=True)
    named = {owner: set(re.findall(r"`([^`]+)`", row)) for owner, row in rows}
    for owner, names in named.items():
        assert names <= {name for name, who in OWNERS.names.items() if who == owner}
    for name, owner in OWNERS.names.items():
        assert name in named[owner] or owner == "shipway"


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / changelog.PATH).read_text()
    headings = re.findall(r"(?m)^## (\S+)$", text)
    assert headings[0] == version.current()
    numbers = [changelog.number(heading) for heading in headings]
    assert None not in numbers
    assert numbers == sorted(numbers, key=lambda number: number or (), reverse=True)
    part = changelog.between(text, headings[1], headings[0])
    assert part.startswith(f"## {headings[0]}\n")
    assert f"## {headings[1]}" not in part


def test_a_record_is_what_was_written() -> None:
    for written in (
        Record(version="0.2.0"),
        Record(version="1.2.3", files="sha256:0", source='C:\\a"b', commit="a", keep=["a b", "ü"]),
        Record(version="1.2.3", self_hosted_runners=True),
    ):
        assert record.parse(record.render(written)) == written
    with pytest.raises(UsageError, match=r"\.shipway\.toml: .*versoin"):
        record.parse('version = "1.0.0"\nversoin = "1.0.0"\n')
    with pytest.raises(UsageError, match=r"\.shipway\.toml: "):
        record.parse("<<<<<<< ours")
