"""`uv run` and `poetry run` in an image's command: here, what they run is the command.

They would look for the project's environment, and install what it lacks. Its packages are in the
image, and its interpreter is this machine's.

Sources: https://docs.astral.sh/uv/reference/cli/#uv-run, https://python-poetry.org/docs/cli/#run
"""

from __future__ import annotations

import re

_WITHOUT_VALUE = frozenset(
    {"--frozen", "--locked", "--no-sync", "--offline", "--no-dev", "--only-dev", "--all-extras",
     "--all-groups", "--no-default-groups", "--no-editable", "--quiet", "-q", "--no-cache", "-n",
     "--no-progress", "--compile-bytecode", "--active", "--exact", "--no-interaction"}
)  # fmt: skip
_WITH_VALUE = frozenset({"--group", "--no-group", "--only-group", "--extra", "--no-extra"})


class NotKnown(Exception):
    """A runner that is called in a way that is not known; the text says which word."""


def runner(words: list[str], shell: list[str]) -> str:
    """Return the runner that a command starts: "uv", "poetry", or "" for none."""
    found = _split(words, shell)[1][:2]
    return found[0] if found in (["uv", "run"], ["poetry", "run"]) else ""


def without_runner(words: list[str], shell: list[str]) -> list[str]:
    """Return a command of `uv run` or `poetry run` without it.

    Args:
        words: the command, in the exec form; the shell form has `shell` before its text.
        shell: the words of the shell.

    Raises:
        NotKnown: an option is not known, or there is no program.
    """
    start, found, ends = _split(words, shell)
    at, instead = 2, []
    while at < len(found) and found[at].startswith("-"):
        option, equals, _ = found[at].partition("=")
        at += 1
        if option in ("-m", "--module"):
            instead = ["python", "-m"]
            break
        if option == "--":
            break
        if option in _WITH_VALUE:
            at += not equals
        elif option not in _WITHOUT_VALUE:
            raise NotKnown(option)
    if at >= len(found):
        raise NotKnown(" ".join(found))
    if not instead and found[at].endswith(".py"):
        instead = ["python"]
    if not ends:
        return [*instead, *found[at:]]
    text = words[-1]
    return [*shell, " ".join([*start, *instead, text[ends[at - 1] :].lstrip()])]


def _split(words: list[str], shell: list[str]) -> tuple[list[str], list[str], list[int]]:
    """Return `exec` if a text begins with it, the words, and where each ends in the text."""
    if words[:-1] != shell:
        return [], words, []
    found = [(match[0], match.end()) for match in re.finditer(r"\S+", words[-1])]
    start = ["exec"] if found[:1] and found[0][0] == "exec" else []
    found = found[len(start) :]
    return start, [word for word, _ in found], [end for _, end in found]
