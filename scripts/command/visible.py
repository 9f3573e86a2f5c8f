"""The filter for text from others: what a terminal would obey becomes text that it shows.

Commit subjects, authors, answers, log lines, annotations and arguments may contain anything.
"""

from __future__ import annotations

import re

# Every control character but tab and newline: C0, DEL and C1 (ECMA-48) move the cursor, clear the
# screen, write to the clipboard. The separators of lines and paragraphs, which only some programs
# take for a new line. The controls of text direction (Unicode's property Bidi_Control, UAX #9),
# which show text in another order. Lone surrogates, which no stream can encode.
# The joiners of emoji and of scripts are left alone.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Return text that does nothing but show itself: a control character as its escape, \x1b.

    Tabs and newlines stay; the newline of other systems becomes one.
    """
    plain = text.replace("\r\n", "\n")
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), plain)


def one_line(text: str) -> str:
    """Return visible text without a line break, so that it cannot pass for a line of its own."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def hanging(text: str, indent: int) -> str:
    """Return visible text with all lines but the first indented, so that none passes for ours."""
    return visible(text).replace("\n", "\n" + " " * indent)


def json_escaped(document: str) -> str:
    """Return a JSON document that means the same and contains nothing that a terminal obeys."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
