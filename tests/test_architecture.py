"""docs/architecture.md: the files that it names exist, and its table of rooms is complete."""

from __future__ import annotations

import re

import pytest

from scripts.command import verbs
from tests.conftest import ROOT
from tests.test_rooms import imports, rooms

PAGE = (ROOT / "docs" / "architecture.md").read_text()
# The sample's pipelines: a fork renames them.
SAMPLE = "pipelines/app/"


def section(title: str) -> str:
    """Return the text between a heading and the next one of its kind."""
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if set(row[0]) != {"-"} and row[0] not in ("To change", "Room")]


ROOMS = rows(section("Rooms").partition("The rooms of `scripts/`")[2])


def paths(text: str) -> list[str]:
    """Return the paths that a text names in backquotes."""
    named = re.findall(r"`([\w./-]+)`", text)
    return [name.replace(SAMPLE, f"tests/{SAMPLE}") for name in named if "/" in name]


@pytest.mark.parametrize("row", rows(section("To change something")), ids=lambda row: row[0])
def test_each_row_names_files_that_exist(row: list[str]) -> None:
    assert paths(row[1])
    for path in paths(row[1]):
        assert (ROOT / path).exists(), path


def test_a_room_imports_only_rooms_above_it_in_the_table() -> None:
    order = [row[0].strip("`").removesuffix(".py").rstrip("/") for row in ROOMS]
    graph = rooms(imports())
    shared = {
        path.stem
        for path in (ROOT / "scripts").iterdir()
        if path.stem not in {verb.name for verb in verbs.VERBS} and not path.stem.startswith("__")
    }
    assert shared == set(order)
    for place, name in enumerate(order):
        imported = {room.removeprefix("scripts.") for room in graph[f"scripts.{name}"]}
        assert imported - {"scripts"} <= set(order[:place]), name


def test_files_that_the_text_names_exist() -> None:
    """Paths in the text are relative to scripts/, or to the repository."""
    for path in set(re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|toml))`", PAGE)):
        places = [ROOT / path, ROOT / "scripts" / path, ROOT / "emulator" / path]
        assert any(place.is_file() for place in places), path
