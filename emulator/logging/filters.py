"""Cloud Logging's query language: comparisons joined by AND, OR, NOT and parentheses.

Source: https://cloud.google.com/logging/docs/view/logging-query-language. NOT binds tightest, then
OR, then AND, which may be left out. Not supported: words without a field, lists of values, and
functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from emulator import clock, fields
from emulator.errors import ApiError, invalid
from emulator.logging import matching
from emulator.logging.matching import Entry

_COMPARISON = re.compile(
    r"""(?P<field>[A-Za-z_][\w\-/]*(?:\.(?:[\w\-/]+|"[^"]+"))*)\s*
    (?P<operator>>=|<=|!=|=~|!~|=|>|<|:)\s*
    (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s()"]+))""",
    re.VERBOSE,
)
_JOINED = re.compile(r"(AND|OR)(?=[\s(\-\"])")
_NEGATED = re.compile(r"NOT(?=[\s(])|-(?=[A-Za-z_(])")
# Characters. Source: https://cloud.google.com/logging/quotas (the length of a query).
_LONGEST = 20_000
# Parentheses and NOTs in each other.
_DEEPEST = 50
_STEP = re.compile(r'"([^"]+)"|([^."]+)')


class Filter(NamedTuple):
    """A parsed filter.

    Attributes:
        matches: Whether an entry matches.
        exact: The values that fields have in every match.
        since: The time before which no entry matches, in the form of `clock.now`.
    """

    matches: Callable[[Entry], bool]
    exact: dict[str, str]
    since: str


def parse(text: str) -> Filter:
    """Parse a filter; raise a 400 ApiError that names the unsupported part."""
    if len(text) > _LONGEST:
        raise invalid(f"The filter is longer than {_LONGEST} characters.", "filter")
    parser = _Parser(text)
    terms = parser.all_of()
    parser.skip()
    if parser.at < len(text):
        raise _unsupported(text[parser.at :])
    exact = {
        ".".join(t.path): t.value for t in terms if isinstance(t, _Comparison) and t.operator == "="
    }
    bounds = [t.value for t in terms if isinstance(t, _Comparison) and t.is_lower_bound]
    return Filter(
        matches=_every([term.matches for term in terms]),
        exact=exact,
        since=max((clock.rfc3339(clock.moment(value)) for value in bounds), default=""),
    )


class _Term(NamedTuple):
    matches: Callable[[Entry], bool]


class _Comparison(NamedTuple):
    path: tuple[str, ...]
    operator: str
    value: str
    matches: Callable[[Entry], bool]

    @property
    def is_lower_bound(self) -> bool:
        return self.path == ("timestamp",) and self.operator in ("=", ">", ">=")


class _Parser:
    """Reads a filter from left to right; `at` is the current position."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._depth = 0

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def all_of(self) -> list[_Term | _Comparison]:
        """Parse terms joined by AND, up to the end or a closing parenthesis."""
        terms: list[_Term | _Comparison] = []
        self.skip()
        while self.at < len(self.text) and self.text[self.at] != ")":
            terms.append(self._any_of())
            if self._word(_JOINED) and self.at >= len(self.text):
                raise _unsupported("AND")
        return terms

    def _any_of(self) -> _Term | _Comparison:
        first = self._one()
        terms = [first]
        while self._ahead(_JOINED) == "OR":
            self._word(_JOINED)
            terms.append(self._one())
        if len(terms) == 1:
            return first
        alternatives = [term.matches for term in terms]
        return _Term(lambda entry: any(matches(entry) for matches in alternatives))

    def _one(self) -> _Term | _Comparison:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise invalid(f"The filter is nested more than {_DEEPEST} times.", "filter")
        found = self._nested()
        self._depth -= 1
        return found

    def _nested(self) -> _Term | _Comparison:
        if self._word(_NEGATED):
            matches = self._one().matches
            return _Term(lambda entry: not matches(entry))
        self.skip()
        if self.text.startswith("(", self.at):
            opened = self.at
            self.at += 1
            terms = self.all_of()
            if not terms or not self.text.startswith(")", self.at):
                raise _unsupported(self.text[opened:])
            self.at += 1
            return _Term(_every([term.matches for term in terms]))
        return self._comparison()

    def _comparison(self) -> _Comparison:
        found = _COMPARISON.match(self.text, self.at)
        if not found:
            raise _unsupported(self.text[self.at :])
        self.at = found.end()
        quoted = found["quoted"]
        value = found["bare"] if quoted is None else re.sub(r"\\(.)", _unescaped, quoted)
        path = _path(found["field"])
        # A quoted asterisk is a plain asterisk.
        present = quoted is None and (found["operator"], value) == (":", "*")
        try:
            matches = (
                matching.present(path)
                if present
                else matching.comparison(path, found["operator"], value)
            )
        except ValueError as error:
            raise invalid(f"{error} in filter: {found[0]}", "filter") from None
        return _Comparison(path, found["operator"], value, matches)

    def _ahead(self, pattern: re.Pattern[str]) -> str | None:
        self.skip()
        found = pattern.match(self.text, self.at)
        return found[0] if found else None

    def _word(self, pattern: re.Pattern[str]) -> bool:
        """Skip `pattern` if it comes next; return whether it did."""
        found = self._ahead(pattern)
        self.at += len(found or "")
        self.skip()
        return found is not None


def _every(conditions: list[Callable[[Entry], bool]]) -> Callable[[Entry], bool]:
    return lambda entry: all(matches(entry) for matches in conditions)


def _path(field: str) -> tuple[str, ...]:
    """Return the steps to a field; `log_name` is another name of `logName`."""
    steps = [quoted or bare for quoted, bare in _STEP.findall(field)]
    known = 1 if steps[0] in ("labels", "json_payload", "jsonPayload") else len(steps)
    known = min(known, 2) if steps[:2] == ["resource", "labels"] else known
    return tuple(fields.camel(step) if n < known else step for n, step in enumerate(steps))


def _unescaped(found: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1])


def _unsupported(rest: str) -> ApiError:
    return invalid(f"Unparseable or unsupported filter at: {rest[:80]}", "filter")
