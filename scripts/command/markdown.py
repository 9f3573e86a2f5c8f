"""Markdown for a run page, in which text from outside stays text.

Subjects, reasons, answers and logs come from other people. Whatever they contain, it makes no
table, link, mention or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from scripts.command.visible import visible

_MOST_LINES = 200


def plain(text: str) -> str:
    """Return text as one line of Markdown that shows that text and nothing else.

    A character reference is text wherever it stands. GitHub looks for mentions and addresses in
    the rendered page, so an invisible character separates an @ from what follows.
    Source: https://github.github.com/gfm/#entity-and-numeric-character-references
    """
    line = " ".join(visible(text).split())
    shown = "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in line)
    return shown.replace("&#64;", "&#64;&#8288;")


def code(text: str) -> str:
    """Return text in one line, as code."""
    return f"<code>{plain(text)}</code>"


def link(text: str, url: str) -> str:
    """Return a link; only its text if the address is not a web address."""
    if not re.match(r"https?://", url):
        return plain(text)
    return f"[{plain(text)}]({quote(url, safe=':/?=&%#-._~')})"


def block(lines: Sequence[str]) -> str:
    """Return lines as they are, in a fence that none of them can close."""
    shown = [part for line in lines for part in visible(line).split("\n")][:_MOST_LINES]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *shown, fence])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. Its cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(parts: Sequence[str]) -> str:
    """Join the parts that are not empty."""
    return "\n\n".join(part for part in parts if part) + "\n\n"
