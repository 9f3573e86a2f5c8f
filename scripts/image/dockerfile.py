"""Read a Dockerfile's instructions, to say what is wrong before a build. Syntax only.

The builders read it themselves and in full. The package `dockerfile-parse` does not know
here-documents. Source: https://docs.docker.com/reference/dockerfile/ (Format, Parser directives).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import msgspec

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z]+)\s*=\s*(\S+)\s*")
_HERE_DOCUMENT = re.compile(r"<<-?\s*[\"']?([A-Za-z_]\w*)")
_FLAG = re.compile(r"--[a-z-]+(?:=\S*)?\s+")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?[-+]([^}]*))?\}|(\w+))")


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction.

    Attributes:
        line: the number of its first line, from 1.
        name: in capitals.
        value: the rest, with continuation lines joined.
    """

    line: int
    name: str
    value: str

    @property
    def exec_form(self) -> list[str] | None:
        """The words of `["a", "b"]`; None for the shell form."""
        try:
            words = json.loads(self.value)
        except ValueError:
            return None
        fits = isinstance(words, list) and all(isinstance(word, str) for word in words)
        return words if fits else None

    @property
    def words(self) -> list[str]:
        """The words of either form, with their variables, without the instruction's flags."""
        value = self.value
        while flag := _FLAG.match(value):
            value = value[flag.end() :]
        found = self.exec_form
        return split(value) if found is None else found

    @property
    def pairs(self) -> dict[str, str]:
        """The variables of ENV or ARG; the value of an ARG without one is ""."""
        words = self.words
        if self.name == "ENV" and words and "=" not in words[0]:
            return {words[0]: " ".join(words[1:])}
        return {word.partition("=")[0]: word.partition("=")[2] for word in words}


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage: its FROM, the image or stage that it starts from, its name, its instructions."""

    start: Instruction
    base: str
    name: str
    instructions: list[Instruction]


class Dockerfile(msgspec.Struct, frozen=True, kw_only=True):
    """A Dockerfile: its stages, and the defaults of the ARGs before the first FROM."""

    stages: list[Stage]
    arguments: dict[str, str]

    def stage(self, name: str) -> Stage | None:
        """Return the stage of this name or number; None if it names an image."""
        found = [one for one in self.stages if one.name and one.name == name.lower()]
        if not found and name.isdecimal() and int(name) < len(self.stages):
            return self.stages[int(name)]
        return found[-1] if found else None

    def final(self, *names: str) -> list[Instruction]:
        """Return the instructions of the image that is built, with those of the stages below it.

        Args:
            names: the instructions to return; none for all.
        """
        chain: list[Stage] = []
        stage = self.stages[-1] if self.stages else None
        while stage is not None and stage not in chain:
            chain.insert(0, stage)
            stage = self.stage(stage.base)
        found = [one for each in chain for one in each.instructions]
        return [one for one in found if not names or one.name in names]

    def variables(self) -> dict[str, str]:
        """Return the variables that the image sets for its process."""
        found: dict[str, str] = {}
        for one in self.final("ENV"):
            found |= one.pairs
        return found

    def command(self) -> Instruction | None:
        """Return the instruction that starts the process: an ENTRYPOINT with CMD's words in it."""
        entry, command = None, None
        for one in self.final("ENTRYPOINT", "CMD"):
            if one.name == "CMD":
                command = one
            else:
                # An empty one takes away what a base image has.
                entry, command = (None if one.exec_form == [] else one), None
        if entry is None or command is None or not (entry.exec_form and command.exec_form):
            return entry or command
        both = json.dumps([*entry.exec_form, *command.exec_form])
        return Instruction(line=entry.line, name=entry.name, value=both)


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile's text. A line that is not an instruction is left to the builder."""
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for one in _instructions(text):
        if one.name == "FROM" and one.words:
            base, *rest = one.words
            name = rest[1].lower() if len(rest) == 2 and rest[0].lower() == "as" else ""
            base = expand(base, arguments)
            stages.append(Stage(start=one, base=base, name=name, instructions=[]))
        elif stages:
            stages[-1].instructions.append(one)
        elif one.name == "ARG":
            arguments |= one.pairs
    return Dockerfile(stages=stages, arguments=arguments)


def expand(text: str, variables: dict[str, str]) -> str:
    """Replace `$X`, `${X}` and `${X:-default}`; an unknown variable stays."""

    def value(match: re.Match[str]) -> str:
        return variables.get(match[1] or match[3]) or match[2] or match[0]

    return _VARIABLE.sub(value, text)


def split(text: str) -> list[str]:
    """Return the words of a shell's command; those between blanks where its quotes do not end."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _instructions(text: str) -> Iterator[Instruction]:
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _escape(lines)
    first, collected, until = 0, "", ""
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if until:
            until = "" if stripped == until else until
            continue
        if not stripped or stripped.startswith("#"):
            continue
        first = first or number
        if line.rstrip().endswith(escape):
            collected += line.rstrip()[:-1]
            continue
        name, _, value = (collected + line).strip().partition(" ")
        yield Instruction(line=first, name=name.upper(), value=value.strip())
        here = _HERE_DOCUMENT.search(value) if name.upper() in ("RUN", "COPY", "ADD") else None
        first, collected, until = 0, "", here[1] if here else ""
    if name := collected.strip():
        name, _, value = name.partition(" ")
        yield Instruction(line=first, name=name.upper(), value=value.strip())


def _escape(lines: list[str]) -> str:
    """Return the character that continues a line: a directive before everything else sets it."""
    for line in lines:
        match = _DIRECTIVE.fullmatch(line.strip())
        if not match:
            break
        if match[1].lower() == "escape":
            return match[2]
    return "\\"
