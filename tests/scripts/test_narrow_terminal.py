"""On a terminal of 80 columns, the names in a table can be copied whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from scripts.command.results import Table, rich_table

HISTORY = Table(
    columns=["REGION", "REVISION", "COMMIT", "IMAGE", "MADE", "TRAFFIC", "STATE", "LAST"],
    rows=[
        ["us-central1", "app-2bc5cf8", "2bc5cf8", "sha256:9d956885dba7", "9 s ago", "100 %",
         "rollback target", "promote 100 % by somebody@example.com, 6 s ago"],
    ],
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


def shown(columns: int, monkeypatch: pytest.MonkeyPatch, table: Table = HISTORY) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    written = io.StringIO()
    Console(file=written, width=columns).print(rich_table(table))
    return written.getvalue().splitlines()


def test_the_image_and_the_last_change_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    header, row = shown(80, monkeypatch)
    for whole in ("REGION", "REVISION", "COMMIT", "TRAFFIC", "STATE"):
        assert whole in header.split()
    for whole in ("us-central1", "app-2bc5cf8", "2bc5cf8", "100 %", "rollback target"):
        assert f"{whole} " in row
    assert row.count("…") == 3


def test_a_wide_terminal_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    _, row = shown(160, monkeypatch)
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == HISTORY.rows[0]


def test_a_log_and_a_list_of_files_are_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    header, first, *_, last = shown(80, monkeypatch, LOGS)
    assert header.split() == LOGS.columns
    assert [cell for cell in first.split("  ") if cell][:3] == LOGS.rows[0][:3]
    assert last.rstrip().endswith("The end")
    assert "/f.yml (1)" in "".join(shown(80, monkeypatch, UPGRADE))
