"""Words, quotes and variables, in the Dockerfile's syntax.

Source: Dockerfile reference, "Environment replacement", and BuildKit's `frontend/dockerfile/shell`.
"""

from __future__ import annotations

from collections.abc import Mapping

_LONGEST = 1 << 20  # characters of an expanded word
_MOST = 100  # variables in one word
_SPACE = " \t\n"


def split(text: str, escape: str = "\\") -> list[str]:
    """Split at unquoted white space; quotes and escapes stay in the words.

    Raises:
        ValueError: a quote is not closed.
    """
    words: list[str] = []
    word, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _SPACE:
            words += [word] if word else []
            word, at = "", at + 1
            continue
        word += char
        at += 1
    if quote:
        raise ValueError(f"a {quote} is not closed")
    return [*words, word] if word else words


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Remove a word's quotes and escapes, and replace its variables.

    Supports `$X`, `${X}`, `${X:-default}`, `${X:+other}`, `${X:?message}`, and the last three
    without the colon, for which an empty variable counts as set. An unset variable is empty.

    Raises:
        ValueError: the word is malformed, or a variable that `?` requires is not set.
    """
    if word.count("${") > _MOST:  # they may be nested
        raise ValueError(f"a value has more than {_MOST} variables")
    result, quote, at = "", "", 0
    while at < len(word):
        char = word[at]
        if quote == "'":
            quote, result = ("", result) if char == "'" else (quote, result + char)
            at += 1
        elif char == escape and at + 1 < len(word):
            # In double quotes, the escape is a plain character except before these.
            kept = quote == '"' and word[at + 1] not in f'"${escape}'
            result += word[at : at + 2] if kept else word[at + 1]
            at += 2
        elif char == '"' or (char == "'" and not quote):
            quote = "" if quote else char
            at += 1
        elif char == "$":
            value, at = _variable(word, at + 1, variables, escape)
            result += value
            if len(result) > _LONGEST:  # a few lines of ENV A=$A$A make any length
                raise ValueError(f"a value has more than {_LONGEST} characters")
        else:
            result += char
            at += 1
    if quote:
        raise ValueError(f"a {quote} is not closed")
    return result


def _variable(word: str, at: int, variables: Mapping[str, str], escape: str) -> tuple[str, int]:
    """Return the value of the variable that starts at `at`, and the position after it."""
    if word[at : at + 1] != "{":
        end = _name_end(word, at)
        if end == at:
            return "$", at
        return variables.get(word[at:end], ""), end
    end = _closing_brace(word, at)
    name_end = _name_end(word, at + 1)
    name, rest = word[at + 1 : name_end], word[name_end:end]
    if not name:
        raise ValueError(f"no variable name in ${word[at : end + 1]}")
    value = variables.get(name)
    if not rest:
        return value or "", end + 1
    operator = rest[:2] if rest[0] == ":" else rest[:1]
    argument = rest[len(operator) :]
    present = bool(value) if operator.startswith(":") else value is not None
    match operator[-1]:
        case "-":
            chosen = (value or "") if present else expand(argument, variables, escape)
        case "+":
            chosen = expand(argument, variables, escape) if present else ""
        case "?":
            if not present:
                message = expand(argument, variables, escape) or "is not set"
                raise ValueError(f"{name}: {message}")
            chosen = value or ""
        case _:
            raise ValueError(f"${{{name}{rest}}} is not supported here")
    return chosen, end + 1


def _name_end(word: str, at: int) -> int:
    while at < len(word) and word[at].isascii() and (word[at].isalnum() or word[at] == "_"):
        at += 1
    return at


def _closing_brace(word: str, at: int) -> int:
    depth = 0
    for index in range(at, len(word)):
        depth += {"{": 1, "}": -1}.get(word[index], 0)
        if depth == 0:
            return index
    raise ValueError("a ${ is not closed")
