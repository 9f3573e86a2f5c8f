"""The parameters of lists: `labelSelector`, and `limit` and `continue` for pages.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from emulator.errors import invalid
from emulator.wire import Document, from_token, to_token

_Test = Callable[[Mapping[str, str]], bool]

_NAME = r"[A-Za-z0-9][\w./-]*"
_SET = re.compile(rf"({_NAME})\s+(in|notin)\s+\(([^)]*)\)")
_EQUAL = re.compile(rf"({_NAME})\s*(==|=|!=)\s*([\w.-]*)")
# Commas inside brackets separate values, not requirements.
_PART = re.compile(r"(?:\([^()]*\)|[^,])+")
_EXISTS = re.compile(rf"(!?)\s*({_NAME})")


def select(documents: list[Document], selector: str) -> list[Document]:
    """Return the documents whose labels match a selector such as `a=b,c!=d,e in (f,g),!h`."""
    parts = [part.strip() for part in _PART.findall(selector) if part.strip()]
    tests = [_test(part) for part in parts]
    return [
        document
        for document in documents
        if all(test(document["metadata"].get("labels", {})) for test in tests)
    ]


def _test(part: str) -> _Test:
    if found := _SET.fullmatch(part):
        name, operator, inside = found.groups()
        values = {value.strip() for value in inside.split(",")}
        return lambda labels: (labels.get(name) in values) == (operator == "in")
    if found := _EQUAL.fullmatch(part):
        name, operator, value = found.groups()
        return lambda labels: (labels.get(name) == value) == (operator != "!=")
    if found := _EXISTS.fullmatch(part):
        negated, name = found.groups()
        return lambda labels: (name in labels) != bool(negated)
    raise invalid(f"Unparseable label selector at: {part}", "labelSelector")


def page(documents: list[Document], limit: str, token: str) -> tuple[list[Document], str]:
    """Return one page of a list and the token of the next page, "" after the last.

    The token names the last document of the page, so that new or deleted documents do not shift
    the next page.
    """
    try:
        size = int(limit or 0)
        last = from_token(token)
    except ValueError:
        raise invalid("The limit or the continue token is not valid.") from None
    if size < 0:
        raise invalid("must not be negative.", "limit")
    start = 0
    if last:
        names = [str(document["metadata"]["uid"]) for document in documents]
        if last not in names:
            raise invalid("The continue token is no longer valid.", "continue")
        start = names.index(last) + 1
    end = start + size if size else len(documents)
    shown = documents[start:end]
    if end >= len(documents) or not shown:
        return shown, ""
    return shown, to_token(str(shown[-1]["metadata"]["uid"]))
