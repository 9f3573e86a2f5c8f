"""At 80, 100 and 120 columns, what people copy out of a table is never cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from scripts.command.tables import Table, plain_table, rich_table

LONG = "my-frontend-service-2bc5cf8"
WIDTHS = (80, 100, 120)


def history(revision: str, *regions: str) -> Table:
    return Table(
        columns=["REGION", "REVISION", "COMMIT", "IMAGE", "MADE", "TRAFFIC", "STATE", "LAST"],
        rows=[
            [region, revision, "2bc5cf8", "sha256:9d956885dba7", "9 s ago", "100 %",
             "rollback target", "promote 100 % by somebody@example.com, 6 s ago"]
            for region in regions
        ],
        give_way=["IMAGE", "REGION", "MADE"],
    )  # fmt: skip


STATUS = Table(
    columns=["REGION", "REVISION", "TRAFFIC", "STATE", "SINCE", "COMMIT", "IMAGE"],
    rows=[
        ["asia-northeast3", LONG, "90 % (100 % wanted)", "serving", "5 min ago", "2bc5cf8",
         "sha256:9d956885dba7"],
    ],
    give_way=["IMAGE", "REGION", "SINCE"],
)  # fmt: skip
LOGS = Table(
    columns=["TIME", "SEVERITY", "REVISION", "TEXT"],
    rows=[
        ["2026-11-26T10:04:02.987", "INFO", "app-46cbe16",
         'STARTUP TCP probe succeeded after 1 attempt for container "app" on port 8080. The end'],
    ],
)  # fmt: skip
UPGRADE = Table(
    columns=["CHANGE", "FILES"],
    rows=[["conflicts", ", ".join(f".github/workflows/{n}.yml (1)" for n in "abcdef")]],
)
REFERENCE = f"us-central1-docker.pkg.dev/acme-ops/services/app@sha256:{'0123' * 16}"
BUILD = Table(columns=["COMMIT", "IMAGE", "BUILT"], rows=[["2bc5cf8", REFERENCE, "yes"]])


def shown(width: int, table: Table) -> list[str]:
    """Return the lines that the program prints, before the terminal breaks any."""
    written = io.StringIO()
    Console(file=written, width=width).print(rich_table(table, width), soft_wrap=True)
    return written.getvalue().splitlines()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("table", [history("app-2bc5cf8", "us-central1"), STATUS])
def test_every_cell_that_is_left_is_whole_and_every_line_fits(width: int, table: Table) -> None:
    lines = shown(width, table)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    (row,) = table.rows
    for column, cell in zip(table.columns, row, strict=True):
        assert (column in lines[0].split()) == (cell.split()[0] in text)
        if column not in (*table.give_way, "LAST"):
            assert cell in text, column
    assert "…" not in text


def test_columns_give_way_in_their_order() -> None:
    table, left = history("app-2bc5cf8", "us-central1"), []
    for width in range(140, 79, -1):
        columns = shown(width, table)[0].split()
        if columns not in left:
            left.append(columns)
    gone: list[str] = []
    for name in ("", *table.give_way):
        gone.append(name)
        assert left.pop(0) == [column for column in table.columns if column not in gone]
    assert not left


def test_the_region_stays_where_there_are_several() -> None:
    lines = shown(80, history(LONG, "us-central1", "europe-west1"))
    assert "REGION" in lines[0]
    assert [word for line in lines for word in line.split() if word == LONG] == [LONG, LONG]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_that_does_not_fit_takes_several_lines(width: int) -> None:
    name = "x" * 70 + "-2bc5cf8"
    header, second, row, *others = shown(width, history(name, "us-central1"))
    assert header.startswith("REVISION")
    assert second.startswith("    ")
    assert row.startswith(name)
    assert all(line.startswith("    ") for line in others)
    assert max(map(len, (row, *others))) <= width


def test_a_long_image_reference_is_one_word() -> None:
    assert REFERENCE in "\n".join(shown(80, BUILD))


def test_text_is_broken_between_words_and_a_log_entry_by_the_terminal() -> None:
    assert LOGS.rows[0][3] in shown(80, LOGS)[1]
    files = [line[len("conflicts  ") :].strip() for line in shown(80, UPGRADE)[1:]]
    assert " ".join(files) == UPGRADE.rows[0][1]


def test_a_letter_of_two_columns_keeps_the_columns_aligned() -> None:
    table = Table(columns=["BY", "VERB"], rows=[["山田太郎", "hold"], ["abcdefgh", "hold"]])
    assert shown(80, table)[1:] == ["山田太郎  hold", "abcdefgh  hold"]


def test_without_a_terminal_nothing_gives_way() -> None:
    assert "sha256:9d956885dba7" in plain_table(history(LONG, "us-central1"))


def test_the_cells_of_a_grid_are_broken_between_words_before_they_take_lines_of_their_own() -> None:
    cell = "470ba58 10 % <- 335fe22 HOLD"
    grid = Table(
        columns=["SERVICE", "LOCAL", "STAGING", "PRODUCTION"],
        rows=[["my-frontend-service", cell, cell, cell]],
        breaks=dict.fromkeys(["LOCAL", "STAGING", "PRODUCTION"], 14),
    )
    lines = str(rich_table(grid, 80)).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert " ".join(lines[1].split() + lines[2].split()).count("HOLD") == 3
