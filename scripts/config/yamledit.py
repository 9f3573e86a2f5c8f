"""Edit YAML as text: change one value or line, and keep everything else, comments included."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import yaml

from scripts.config import yamlload

Path = Sequence[str | int]


def scalar(value: str) -> str:
    """Return text as a YAML scalar, in quotes only if YAML would read it as something else."""
    try:
        read = yamlload.load(value)
    except yaml.YAMLError:
        read = None
    plain = read == value and ": " not in value and " #" not in value
    return value if plain else json.dumps(value, ensure_ascii=False)


def flow(values: Sequence[str]) -> str:
    """Return a list on one line."""
    return f"[{', '.join(scalar(value) for value in values)}]"


def get(text: str, path: Path) -> Any:
    """Return the value at `path`, or None."""
    value = yamlload.load(text)
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def replace(text: str, path: Path, new: str) -> str:
    """Replace the value at `path`; without one, return the text unchanged.

    Args:
        text: the document.
        path: the value's keys.
        new: YAML on one line (see `scalar` and `flow`).
    """
    pair = _find(text, path)
    if pair is None:
        return text
    _, value = pair
    return text[: value.start_mark.index] + new + text[_end(value) :]


def insert_after(text: str, path: Path, line: str) -> str:
    """Add a line of YAML below the value at `path`, with the indentation of its key."""
    pair = _find(text, path)
    if pair is None:
        return text
    key, value = pair
    end = text.find("\n", _end(value))
    end = len(text) if end < 0 else end
    return f"{text[:end]}\n{' ' * key.start_mark.column}{line}{text[end:]}"


def remove(text: str, path: Path) -> str:
    """Remove the lines of the key at `path`, with the comment at their end."""
    pair = _find(text, path)
    if pair is None:
        return text
    key, value = pair
    start = text.rfind("\n", 0, key.start_mark.index) + 1
    end = text.find("\n", _end(value))
    return text[:start] + ("" if end < 0 else text[end + 1 :])


def entries(text: str, path: Path) -> tuple[str, list[str], str]:
    """Cut the document around the entries of the block mapping or sequence at `path`.

    Returns:
        The text before the entries, each entry with the lines up to the next one, the text after.
        Joined, they are the document again. Without any entry, the first text is all of it.
    """
    pair = _find(text, path)
    if pair is None or not isinstance(pair[1], yaml.CollectionNode) or not pair[1].value:
        return text, [], ""
    nodes = pair[1].value
    keys = [entry[0] if isinstance(entry, tuple) else entry for entry in nodes]
    starts = [text.rfind("\n", 0, key.start_mark.index) + 1 for key in keys]
    end = int(pair[1].end_mark.index)
    blocks = [text[a:b] for a, b in itertools.pairwise([*starts, end])]
    return text[: starts[0]], blocks, text[end:]


def _find(text: str, path: Path) -> tuple[yaml.Node, yaml.Node] | None:
    """Find the key (or list item) and the value at `path`."""
    node = yaml.compose(text, Loader=yamlload.TextLoader)
    found = None
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            items = node.value
            found = (items[step], items[step]) if step < len(items) else None
        else:
            return None
        if found is None:
            return None
        node = found[1]
    return found


def _end(node: yaml.Node) -> int:
    """Return where a value's own text ends. A block's mark is where the next one begins."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(node, yaml.MappingNode) else last
    return int(node.end_mark.index)
