"""Load YAML that someone else wrote: bounded in depth, size and time, one kind of error.

PyYAML recurses without a limit, expands aliases without a limit, and lets the exceptions of
Python's own types escape. These loaders refuse all of that while they compose the document.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import Composer
from yaml.reader import Reader

MOST_BYTES = 1_000_000
_DEEPEST = 100
_NODE_BYTES = 50  # the weight of a node beside its text: about what it takes in memory
_LONGEST_TYPED = 100  # characters of a number or date; a longer one takes quadratic time to read
_STR = "tag:yaml.org,2002:str"


class Unsafe(yaml.MarkedYAMLError):
    """YAML that is valid, but that Shipway does not load."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Bounded(Composer):
    """Composes nodes within the limits, and makes Python values of them."""

    def __init__(self) -> None:
        Composer.__init__(self)
        self._depth = 0
        self._weight = 0
        self._weights: dict[int, int] = {}  # id of a finished node -> its weight, aliases included

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[attr-defined]  # the parser is a sibling class
        mark = event.start_mark
        before = self._weight
        if isinstance(event, yaml.AliasEvent):
            self._weigh_alias(event)
        else:
            self._weight += _NODE_BYTES + len(getattr(event, "value", ""))
            if event.anchor in self.anchors:
                raise Unsafe(f"the anchor '{event.anchor}' appears twice", mark)
            if event.tag not in (None, "!") and not (
                event.tag == _STR and isinstance(event, yaml.ScalarEvent)
            ):
                raise Unsafe(f"the tag {event.tag} is not supported; remove it", mark)
        if self._weight > MOST_BYTES:
            raise Unsafe(f"too large: more than {MOST_BYTES} bytes with its aliases", mark)
        if self._depth == _DEEPEST:
            raise Unsafe(f"nested more than {_DEEPEST} deep", mark)
        self._depth += 1
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        is_key = isinstance(parent, yaml.MappingNode) and index is None
        if is_key and not isinstance(node, yaml.ScalarNode):
            raise Unsafe("a list or mapping cannot be a key", mark)
        self._weights.setdefault(id(node), self._weight - before)
        return node

    def _weigh_alias(self, event: yaml.AliasEvent) -> None:
        node = self.anchors.get(event.anchor)
        if node is None:
            return  # Composer reports it
        if id(node) not in self._weights:
            raise Unsafe(f"the alias '{event.anchor}' is inside its own anchor", event.start_mark)
        self._weight += self._weights[id(node)]

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.value in lines:
                raise Unsafe(
                    f"{key.value}: this key appears twice (first in line {lines[key.value]})",
                    key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        construct = super().construct_object  # type: ignore[misc]  # the constructor's, a sibling
        if not isinstance(node, yaml.ScalarNode) or node.tag == _STR:
            return construct(node, deep=deep)
        kind = node.tag.rpartition(":")[2]
        if len(node.value) <= _LONGEST_TYPED:
            try:
                return construct(node, deep=deep)
            except (ValueError, OverflowError):
                pass  # such as 2020-02-30
        shown = node.value if len(node.value) <= 40 else f"{node.value[:40]}…"
        raise Unsafe(f"'{shown}' is not a valid {kind} (put it in quotes)", node.start_mark)


_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_Bounded, _Fast):  # type: ignore[misc]
    """The loader for values and lines."""

    def __init__(self, text: str) -> None:
        _Fast.__init__(self, text)
        _Bounded.__init__(self)


class TextLoader(_Bounded, yaml.SafeLoader):
    """The loader whose marks count characters. The C parser's count bytes."""

    def __init__(self, text: str) -> None:
        yaml.SafeLoader.__init__(self, text)
        _Bounded.__init__(self)


def load(text: str) -> Any:
    """Return the value of a document.

    Raises:
        yaml.YAMLError: it is not valid YAML, or beyond the limits.
    """
    return yaml.load(text, Loader=Loader)  # noqa: S506  (a safe loader)


def text_of(data: bytes) -> str:
    """Decode a document.

    Raises:
        Unsafe: it is too large, not UTF-8, or has a character that YAML forbids.
    """
    if len(data) > MOST_BYTES:
        raise Unsafe(f"too large: more than {MOST_BYTES} bytes", _mark(data, 0))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: byte 0x{data[error.start]:02x}"
        raise Unsafe(what, _mark(data, error.start)) from None
    found = Reader.NON_PRINTABLE.search(text)
    if found:
        place = len(text[: found.start()].encode())
        raise Unsafe(f"the character U+{ord(found[0]):04X} is not allowed", _mark(data, place))
    return text


def _mark(data: bytes, index: int) -> yaml.Mark:
    return yaml.Mark("", index, data.count(b"\n", 0, index), 0, None, 0)
