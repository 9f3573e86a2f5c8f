"""The text of a RUN: its commands, as words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from emulator.builds.packing import shellwords
from emulator.builds.packing.dockerfile import Instruction
from emulator.builds.packing.program import NO_SYSTEM

_OPERATORS = re.compile(r"[;|&<>()`]|\$\(")
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"$`])*\"")
_REDIRECTION = re.compile(r"[12]?>>?(/dev/null|&[12])|&>/dev/null")
_WITHOUT_RESULT = [["||", "true"], ["||", ":"]] + [
    [operator, "/dev/null"] for operator in (">", "1>", "2>", "&>")
]


def commands(
    instruction: Instruction, variables: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of a RUN: each as it is written, and as words.

    Variables are replaced when a command's turn comes, because an earlier one may export some.
    """
    exec_form = instruction.exec_form()
    if exec_form is not None:
        yield " ".join(exec_form), exec_form
        return
    lines = [instruction.value]
    if instruction.documents:
        if not re.fullmatch(r"<<-?\s*[\"']?\w+[\"']?", instruction.value):
            raise instruction.error("only `RUN <<EOF` is known", "commands joined with &&")
        (document,) = instruction.documents
        joined = re.sub(r"\\\n", " ", "\n".join(document))
        lines = [line for line in joined.splitlines() if not re.match(r"\s*(#|$)", line)]
    for line in lines:
        for raw in _split(instruction, line):
            try:
                expanded = [(word, shellwords.expand(word, variables)) for word in raw]
                # An unquoted word that becomes empty is none: `rm -rf $UNSET` removes nothing.
                words = [new for old, new in expanded if new or "'" in old or '"' in old]
            except ValueError as error:
                raise instruction.error(str(error)) from None
            yield " ".join(raw), words


def _split(instruction: Instruction, line: str) -> list[list[str]]:
    """Return the commands of a line as raw words."""
    commands: list[list[str]] = [[]]
    words = replace(instruction, value=line).raw_words()
    while words:
        word = words.pop(0)
        if words and [word, words[0].rstrip(";")] in _WITHOUT_RESULT:
            if words.pop(0).endswith(";"):
                commands.append([])
        elif word in ("&&", ";"):
            commands.append([])
        elif _REDIRECTION.fullmatch(word):
            continue
        elif word.endswith(";") and not _OPERATORS.search(_QUOTED.sub("", word[:-1])):
            commands[-1].append(word[:-1])
            commands.append([])
        elif _OPERATORS.search(_QUOTED.sub("", word)):
            raise instruction.error(NO_SYSTEM, "commands joined with && alone")
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def options(words: list[str]) -> tuple[str, list[str]]:
    """Return the letters of a command's options, and its other words."""
    flags = "".join(word[1:] for word in words if word.startswith("-") and word[1:2] != "-")
    flags += "R" if "--recursive" in words else ""
    names = [word for word in words if not word.startswith("-")]
    if flags.startswith("m") and names:  # `mkdir -m 755 NAME`
        names.pop(0)
    return flags, names
