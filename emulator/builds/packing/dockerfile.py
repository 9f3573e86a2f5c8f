"""Read a Dockerfile into stages of instructions. Syntax only: `stages` runs them.

Source: Dockerfile reference, "Format", "Parser directives", "FROM", "ARG".
The package `dockerfile-parse` supports neither here-documents, flags nor `${X:-default}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from emulator.builds.errors import UsageError
from emulator.builds.packing import shellwords
from emulator.builds.packing.findings import Note, Problem

_INSTRUCTIONS = re.compile(
    "ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL"
    "|STOPSIGNAL|USER|VOLUME|WORKDIR"
)
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z]+)\s*=\s*(\S+)\s*")
_FLAG = re.compile(r"--([a-z]+)(?:=(\S*))?(?:\s+|$)")
_HERE_DOCUMENT = re.compile(r"(?:^|\s)\d*<<(-?)\s*([\"']?)([A-Za-z_]\w*)\2")


class DockerfileError(UsageError):
    """A Dockerfile that is malformed, or instructions that cannot be packed.

    The message starts with `FILE:LINE: ` if one instruction is wrong. If several are, it counts
    them, and the evidence lists them.
    """

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        first = problems[0]
        if len(problems) == 1:
            super().__init__(
                first.what, f"write instead: {first.instead}" if first.instead else None
            )
            return
        super().__init__(
            f"{first.file}: {len(problems)} instructions cannot be packed",
            evidence=[str(problem) for problem in problems],
        )


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        line: the number of its first line, from 1.
        name: in capitals.
        value: the rest after name and flags, with continuation lines joined.
        flags: as written: `--mount=a --mount=b` is (("mount", "a"), …).
        documents: the lines of its here-documents.
    """

    file: str
    line: int
    name: str
    value: str
    flags: tuple[tuple[str, str], ...] = ()
    escape: str = "\\"
    documents: tuple[tuple[str, ...], ...] = ()

    @property
    def text(self) -> str:
        """The instruction on one line."""
        flags = [f"--{name}={value}" if value else f"--{name}" for name, value in self.flags]
        return " ".join([self.name, *flags, self.value])

    def error(self, reason: str, instead: str = "") -> DockerfileError:
        """Make an error about this instruction, which says what to write instead."""
        return DockerfileError(Problem(self.file, self.line, self.quoted, reason, instead))

    def note(self, text: str, quoted: str = "") -> Note:
        """Make a note about this instruction, or about the `quoted` part of it."""
        return Note(self.file, self.line, quoted or self.quoted, text)

    @property
    def quoted(self) -> str:
        """The instruction, shortened to quote it."""
        return self.text if len(self.text) <= 60 else f"{self.text[:59].rstrip()}…"

    def exec_form(self) -> list[str] | None:
        """Return the value as a JSON list of strings; None for the shell form."""
        if not self.value.startswith("["):
            return None
        try:
            parsed = json.loads(self.value)
        except (ValueError, RecursionError):
            return None
        if isinstance(parsed, list) and all(isinstance(word, str) for word in parsed):
            return parsed
        return None

    def raw_words(self) -> list[str]:
        """Return the value's words, with their quotes and variables."""
        try:
            return shellwords.split(self.value, self.escape)
        except ValueError as error:
            raise self.error(str(error)) from None

    def expand(self, text: str, variables: Mapping[str, str]) -> str:
        """Unquote a text of this instruction and replace its variables."""
        try:
            return shellwords.expand(text, variables, self.escape)
        except ValueError as error:
            raise self.error(str(error)) from None

    def words(self, variables: Mapping[str, str]) -> list[str]:
        """Return the words of either form, unquoted and with variables replaced."""
        words = self.exec_form()
        if words is None:
            words = self.raw_words()
        return [self.expand(word, variables) for word in words]

    def pairs(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the `KEY=value` pairs of ENV or LABEL; also reads the old form `KEY value`."""
        words = self.raw_words()
        if words and "=" not in words[0]:
            key, _, value = self.value.partition(" ")
            if not value.strip():
                raise self.error("a value is missing")
            return {key: self.expand(value.strip(), variables)}
        pairs = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or not key:
                raise self.error(f"{word} is not of the form KEY=value")
            pairs[self.expand(key, variables)] = self.expand(value, variables)
        return pairs


@dataclass(frozen=True)
class Stage:
    """A stage: its FROM, the image or stage that it starts from (as written), its instructions."""

    start: Instruction
    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True)
class Dockerfile:
    """`arguments` are the ARGs before the first FROM; `stages` has at least one."""

    arguments: list[Instruction]
    stages: list[Stage]


def read(path: Path, file: str) -> Dockerfile:
    """Read the Dockerfile at `path`.

    Args:
        path: the file.
        file: its name in errors.

    Raises:
        UsageError: the file does not exist or cannot be read.
        DockerfileError: it is malformed; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no such Dockerfile") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from None
    return parse(text, file)


def parse(text: str, file: str) -> Dockerfile:
    """Read a Dockerfile's text; `file` is its name in errors."""
    dockerfile = Dockerfile([], [])
    for instruction in _instructions(text, file):
        if instruction.name == "FROM":
            dockerfile.stages.append(_stage(instruction))
        elif dockerfile.stages:
            dockerfile.stages[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            dockerfile.arguments.append(instruction)
        else:
            raise instruction.error("only ARG may come before the first FROM")
    if not dockerfile.stages:
        raise DockerfileError(Problem(file, 1, "", "there is no FROM"))
    return dockerfile


def _stage(start: Instruction) -> Stage:
    words = start.value.split()
    if len(words) == 3 and words[1].lower() == "as":
        return Stage(start, words[0], words[2].lower())
    if len(words) != 1:
        raise start.error("this should read FROM image, or FROM image AS name")
    return Stage(start, words[0], None)


def _instructions(text: str, file: str) -> Iterator[Instruction]:
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _escape_character(lines)
    first, collected = 0, ""
    numbered = iter(enumerate(lines, start=1))
    for number, line in numbered:
        # Comments and empty lines are dropped even between a line and its continuation.
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = first or number
        stripped = line.rstrip()
        if stripped.endswith(escape):
            collected += stripped[:-1]
            continue
        instruction = _instruction(file, first, (collected + line).strip(), escape)
        if instruction.name in ("RUN", "COPY", "ADD"):
            documents = [
                _document(instruction, numbered, word[3], strip=bool(word[1]))
                for word in _HERE_DOCUMENT.finditer(instruction.value)
            ]
            instruction = replace(instruction, documents=tuple(documents))
        yield instruction
        first, collected = 0, ""
    if collected.strip():
        yield _instruction(file, first, collected.strip(), escape)


def _document(
    instruction: Instruction, lines: Iterator[tuple[int, str]], end: str, *, strip: bool
) -> tuple[str, ...]:
    """Take the lines of a here-document up to its end."""
    found: list[str] = []
    for _number, line in lines:
        if (line.lstrip("\t") if strip else line) == end:
            return tuple(found)
        found.append(line)
    raise instruction.error(f"the here-document {end} has no end")


def _escape_character(lines: list[str]) -> str:
    for line in lines:
        match = _DIRECTIVE.fullmatch(line.strip())
        if not match:
            break
        if match[1].lower() == "escape":
            return match[2]
    return "\\"


def _instruction(file: str, line: int, text: str, escape: str) -> Instruction:
    name, *rest = text.split(None, 1)
    value = rest[0] if rest else ""
    flags = []
    if not _INSTRUCTIONS.fullmatch(name.upper()):
        raise DockerfileError(Problem(file, line, "", f"{name} is not a Dockerfile instruction"))
    while match := _FLAG.match(value):
        flags.append((match[1], match[2] or ""))
        value = value[match.end() :]
    instruction = Instruction(file, line, name.upper(), value.strip(), tuple(flags), escape)
    if not instruction.value:
        raise instruction.error("a value is missing")
    return instruction
