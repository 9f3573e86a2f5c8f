"""The filter for text from others: it shows control characters instead of letting them act.

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
    r"""Return text without control characters; each becomes its escape, such as \x1b.

    Tabs and newlines stay; a Windows newline becomes one character.
    """
    plain = text.replace("\r\n", "\n")
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), plain)


def one_line(text: str) -> str:
    """Return visible text without line breaks, so that it cannot imitate another line."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def hanging(text: str, indent: int) -> str:
    """Return visible text, its later lines indented, so that none imitates a line of Shipway's."""
    return visible(text).replace("\n", "\n" + " " * indent)


def json_escaped(document: str) -> str:
    """Return the same JSON document with control characters escaped."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
