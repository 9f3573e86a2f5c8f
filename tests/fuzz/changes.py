"""Changes to a correct JSON document that make it a hostile one.

A change is data, so that one can be drawn before its document is known, such as the answer of a
server, and so that a failure prints it.
"""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

from hypothesis import strategies as st

TEXTS = [
    "", " ", "a", "-", "_", ".", "..", "/", "a/b", "../../escape", "%2e%2e%2f", "\0", "\n",
    "\r\nX: y",
    "\x1b]52;c;YQ==\x07", "\x9b2J", "\u202egnp.exe", "\ufeff", "\u2028", "\ud800", "é", "٣", "²",
    "a" * 64, "a" * 300, "A" * 5000, "1", "0", "-1", "1e999", "0x10", "9" * 5000, "9" * 400 + "s",
    "true", "null",
    "NaN",
    "{0}", "{a.b}", "%s", "$(id)", "$HOME", "[link=x]", "[/red]", "::add-mask::x", "<script>",
    "sha256:" + "0" * 64, "sha256:..", "sha512:" + "0" * 128, "2020-02-30T00:00:00Z", "soon",
    "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+23:59", "2020-01-01T00:00:00.123456789123Z",
    "1s", "-5s", "1e400s", "1Ei", "m", "1e400Mi", "(((", "[", "^(a+)+$", ")", "a=(", "!", ",",
    "a@b", "@", "user:a@b", "allUsers", "principalSet://x", "roles/none", "http://", "http://[::1",
    "//", "https://a:b@c:99999/", "file:///etc/passwd", "projects/acme", "projects/", "operations/",
    "us-central1", "latest", "app", "acme",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 99, 100, 101, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63,
    2**64, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"),
    -float("inf"),
]  # fmt: skip


def nested(levels: int, *, mapping: bool = False) -> Any:
    """Return lists, or mappings, in each other."""
    value: Any = None
    for _ in range(levels):
        value = {"a": value} if mapping else [value]
    return value


texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=12))
odd = st.one_of(
    st.sampled_from([None, True, False, [], {}, [None], [[]], [{}], {"": None}, {"a": {}}]),
    st.sampled_from(NUMBERS),
    texts,
    st.builds(nested, st.sampled_from([3, 90, 150]), mapping=st.booleans()),
    texts.map(lambda text: [text]),
    st.dictionaries(texts, st.one_of(st.none(), texts), max_size=2),
)
HOW = ("replace", "delete", "wrap", "text", "number", "other", "rename", "add", "many", "unwrap")


class Change(NamedTuple):
    """One change: which value of a document (modulo their number), how, and a value to use."""

    place: int
    how: str
    value: Any


changes = st.lists(
    st.builds(Change, st.integers(0, 400), st.sampled_from(HOW), odd), min_size=1, max_size=3
)


def changed(document: Any, several: list[Change]) -> Any:
    """Return a copy of a document with changes."""
    holder = [copy.deepcopy(document)]
    for change in several:
        places = _places(holder)
        if places:
            _change(places, change)
    return holder[0] if holder else None


def _places(holder: Any) -> list[tuple[Any, Any]]:
    """Return each value as the list or mapping that it is in, and its index or key."""
    found: list[tuple[Any, Any]] = []
    waiting = [holder]
    while waiting:
        inside = waiting.pop()
        for key in inside if isinstance(inside, dict) else range(len(inside)):
            found.append((inside, key))
            if isinstance(inside[key], dict | list):
                waiting.append(inside[key])
    return found


def _change(places: list[tuple[Any, Any]], change: Change) -> None:
    inside, key = places[change.place % len(places)]
    value, name = inside[key], _text(change.value)
    match change.how:
        case "replace":
            inside[key] = copy.deepcopy(change.value)
        case "delete":
            del inside[key]
        case "wrap":
            inside[key] = [value]
        case "unwrap" if isinstance(value, list) and value:
            inside[key] = value[0]
        case "text":
            inside[key] = str(value)[:200]
        case "number":
            inside[key] = NUMBERS[change.place % len(NUMBERS)]
        case "other":
            other, its_key = places[(change.place * 7 + 3) % len(places)]
            inside[key] = copy.deepcopy(other[its_key])
        case "rename" if isinstance(inside, dict):
            inside[name] = inside.pop(key)
        case "add" if isinstance(value, dict):
            value[name] = copy.deepcopy(change.value)
        case "add" | "many" if isinstance(value, list) and len(value) < 100:
            # Not many large values: their text would take the test's memory.
            value.extend([copy.deepcopy(change.value)] if change.how == "add" else [name] * 300)
        case "many" if isinstance(value, str) and len(value) < 100:
            inside[key] = value * 2000


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "odd"


class Spoiled(NamedTuple):
    """A change to a text: at which byte (modulo their number), how, and bytes to use."""

    place: int
    how: str
    value: bytes


BYTES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\r\n\r\n", b"[" * 5000, b'{"a":' * 5000,
    b"]", b"}", b"{", b'"', b",", b"\\ud800", b'{"a":1,"a":2}', b"9" * 5000, b"-", b"NaN", b"1e999",
    b"\x80", b"\xed\xa0\x80", b" " * 5000, b"<html>", b"null",
]  # fmt: skip


def _bytes(number: int) -> bytes:  # a strategy of the bytes themselves would have a huge repr
    return BYTES[number]


spoiled = st.lists(
    st.builds(
        Spoiled,
        st.integers(0, 4000),
        st.sampled_from(["put", "over", "cut", "twice", "all"]),
        st.one_of(st.integers(0, len(BYTES) - 1).map(_bytes), st.binary(max_size=8)),
    ),
    max_size=2,
)
"""Changes to a text; often none."""


def spoil(text: bytes, several: list[Spoiled]) -> bytes:
    """Return a text with changes."""
    for place, how, value in several:
        at = place % (len(text) + 1)
        match how:
            case "put":
                text = text[:at] + value + text[at:]
            case "over":
                text = text[:at] + value + text[at + len(value) :]
            case "cut":
                text = text[:at]
            case "twice":
                text = text[:at] + text
            case "all":
                text = value
    return text


def as_json(document: Any) -> bytes:
    """Write a document as JSON in Python's wide sense, with NaN and halves of surrogate pairs."""
    try:
        return json.dumps(document).encode()
    except (RecursionError, ValueError):
        # Deeper than Python can write it.
        return b'{"a":' * 3000 + b"1" + b"}" * 3000
