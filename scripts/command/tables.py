"""Tables for people, at any width: what they copy is never cut.

On a narrow terminal columns give way in a fixed order; then the text in the columns for text is
broken between words; then each row takes several lines. JSON has everything at any width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from scripts.command.visible import hanging, one_line

if TYPE_CHECKING:
    from rich.text import Text

# The columns for text. It is broken between words, but not while this much of it has room.
_TEXT = {
    *("AFTER", "BEFORE", "DO", "FILES", "FILES SAY", "FOUND", "HAPPENED", "LAST", "PROBLEM"),
    *("RUNS", "WHAT", "WHY"),
}
_LEAST_TEXT = 30
# A log entry may have several lines. It comes last, and the terminal breaks it.
_ENTRY = "TEXT"
_STYLES = {"serving": "green", "candidate": "yellow", "wrong": "red", "skipped": "dim"}
_GAP = "  "
_INDENT = 4


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under column names, and notes below them. Their text may come from others.

    Attributes:
        columns: the names.
        rows: a cell for each column.
        notes: lines below the rows.
        give_way: the columns that a narrow terminal leaves out, first to last; REGION only where
            there is one.
        breaks: further columns whose text is broken between words -> the least width of each.
    """

    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = []
    give_way: list[str] = []
    breaks: dict[str, int] = {}


def plain_table(table: Table) -> str:
    """Return a table as aligned text of any width, with its notes."""
    lines = [line for line, _ in _lines(table, None)]
    return "\n".join([*lines, *(hanging(note, _INDENT) for note in table.notes)])


def rich_table(table: Table, width: int) -> Text:
    """Return a table for a terminal, without its notes. Print it with rich's `soft_wrap`.

    Then the terminal itself breaks a line that is still too long, and it is copied without a break.

    Args:
        table: the table.
        width: the terminal's columns.
    """
    from rich.text import Text

    return Text("\n").join(Text(line, style) for line, style in _lines(table, width))


def _lines(table: Table, width: int | None) -> Iterator[tuple[str, str]]:
    """Yield each line with its style in rich's words."""
    rows = [table.columns, *_cells(table)]
    if width is not None:
        rows = _without(table.give_way, rows, width)
    if not rows[0]:
        return
    breaks = dict.fromkeys(_TEXT, _LEAST_TEXT) | table.breaks
    lines_of_columns, widths = _layout(rows, width, breaks)
    for number, row in enumerate(rows):
        style = "bold dim"
        if number:
            style = next((_STYLES[cell] for cell in row if cell in _STYLES), "")
        for place, columns in enumerate(lines_of_columns):
            indent = " " * (_INDENT if place else 0)
            broken = [
                _broken(row[i], widths[i]) if rows[0][i] in breaks else [row[i]] for i in columns
            ]
            for level in range(max(map(len, broken))):
                cells = [
                    _padded(cell[level] if level < len(cell) else "", widths[i])
                    for i, cell in zip(columns, broken, strict=True)
                ]
                line = (indent + _GAP.join(cells)).rstrip()
                if line or not place:
                    yield line, style


def _cells(table: Table) -> list[list[str]]:
    """Return the rows with visible text only: a cell is one line, unless it is a log entry."""
    return [
        [
            hanging(cell, _INDENT) if column == _ENTRY else one_line(cell)
            for column, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]


def _without(names: list[str], rows: list[list[str]], width: int) -> list[list[str]]:
    """Leave columns out, in their order, until the rest fits."""
    for name in names:
        if _total(_least(rows, dict.fromkeys(_TEXT, _LEAST_TEXT))) <= width:
            break
        at = rows[0].index(name)
        if name != "REGION" or len({row[at] for row in rows[1:]}) == 1:
            rows = [row[:at] + row[at + 1 :] for row in rows]
    return rows


def _natural(rows: list[list[str]]) -> list[int]:
    """Return the width of each column. An entry needs none: the terminal breaks it."""
    return [
        len(name) if name == _ENTRY else max(_measure(row[i]) for row in rows)
        for i, name in enumerate(rows[0])
    ]


def _least(rows: list[list[str]], breaks: Mapping[str, int]) -> list[int]:
    """Return the width of each column where the text is broken."""
    return [
        min(size, breaks.get(name, size))
        for name, size in zip(rows[0], _natural(rows), strict=True)
    ]


def _layout(
    rows: list[list[str]], width: int | None, breaks: Mapping[str, int]
) -> tuple[list[list[int]], list[int]]:
    """Return which columns are on each line of a row, and the width of each column."""
    natural = _natural(rows)
    if width is None:
        return [[*range(len(natural))]], natural
    widths = _least(rows, breaks)
    lines: list[list[int]] = [[]]
    for i, size in enumerate(widths):
        indent = _INDENT if len(lines) > 1 else 0
        if lines[-1] and indent + _total([*(widths[j] for j in lines[-1]), size]) > width:
            lines.append([])
        lines[-1].append(i)
    for place, columns in enumerate(lines):
        left = width - (_INDENT if place else 0) - _total([widths[i] for i in columns])
        # The narrowest first, so that the space it does not need is left for the others.
        texts = sorted((i for i in columns if widths[i] < natural[i]), key=natural.__getitem__)
        for number, i in enumerate(texts):
            more = min(natural[i] - widths[i], max(0, left) // (len(texts) - number))
            widths[i] += more
            left -= more
    return lines, widths


def _broken(cell: str, size: int) -> list[str]:
    """Return the lines of a cell. A word is never broken."""
    if _measure(cell) <= size:
        return [cell]
    return textwrap.wrap(cell, size, break_long_words=False, break_on_hyphens=False)


def _total(widths: list[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _measure(cell: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese letter takes two."""
    if cell.isascii():
        return len(cell)
    from rich.cells import cell_len

    return cell_len(cell)


def _padded(cell: str, size: int) -> str:
    return cell + " " * (size - _measure(cell))
