"""The files of a build context that a `.dockerignore` leaves out.

The last pattern that matches a path or one of its parents decides.
Source: Dockerfile reference, ".dockerignore file", and moby/patternmatcher.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emulator.builds.errors import UsageError

# A star and what is up to the next one, in a pattern that has both alone.
# The same with two stars, where it is a text of one length: between `/`s, or up to the next `**`.
_BETWEEN_FOLDERS = re.compile(r"\*\*/((?:[^*\[\\]|\\.)+/)(?=\*\*/)")
_BETWEEN_DOUBLE_STARS = re.compile(r"\*\*(?!/)((?:[^*\[\\]|\\.)+)(?=\*\*(?!/|\*))")
_BETWEEN_STARS = re.compile(r"\*(?!\*)((?:[^*\[\\]|\\.)+)(?=\*(?!\*))")


@dataclass(frozen=True)
class _Pattern:
    text: str
    excludes: bool
    expression: re.Pattern[str]


class Ignore:
    """The rules of one file; `lines` are its lines."""

    def __init__(self, lines: list[str]) -> None:
        self._patterns = [pattern for line in lines if (pattern := _pattern(line))]

    def excludes(self, path: str) -> bool:
        """Return whether a path, relative to the context and with `/`, is left out."""
        parts = path.split("/")
        parents = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        for pattern in reversed(self._patterns):
            if any(pattern.expression.fullmatch(parent) for parent in parents):
                return pattern.excludes
        return False

    def may_include_below(self, folder: str) -> bool:
        """Return whether a later pattern may include something in an excluded folder."""
        for pattern in self._patterns:
            if pattern.excludes:
                continue
            fixed = re.split(r"[*?\[\\]", pattern.text, maxsplit=1)[0]
            if fixed.startswith(f"{folder}/") or f"{folder}/".startswith(fixed):
                return True
        return False


def read(context: Path, dockerfile: Path) -> Ignore:
    """Read a context's rules: `<Dockerfile>.dockerignore` if it exists, or `.dockerignore`.

    Raises:
        UsageError: the file cannot be read as text.
    """
    for path in (
        dockerfile.with_name(f"{dockerfile.name}.dockerignore"),
        context / ".dockerignore",
    ):
        if path.is_file():
            try:
                return Ignore(path.read_text(encoding="utf-8-sig").splitlines())
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{path.name}: cannot be read: {error}") from None
    return Ignore([])


def walk(context: Path, ignore: Ignore) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the context's remaining files, links and folders as (path, entry), sorted.

    An excluded folder is skipped, even where something in it is included again.
    """
    yield from _walk(str(context), "", ignore)


def _walk(folder: str, prefix: str, ignore: Ignore) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        excluded = ignore.excludes(path)
        if not excluded:
            yield path, entry
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and (not excluded or ignore.may_include_below(path)):
            yield from _walk(entry.path, f"{path}/", ignore)


def _pattern(line: str) -> _Pattern | None:
    if line.startswith("#"):
        return None
    text = line.strip()
    excludes = not text.startswith("!")
    text = text.removeprefix("!").strip()
    if not text:
        return None
    text = posixpath.normpath(text).lstrip("/")
    if text == ".":
        return None
    return _Pattern(text, excludes, re.compile(translate(text), re.DOTALL))


def translate(pattern: str) -> str:
    """Translate a pattern of Go's `filepath.Match`, with `**` for any folders, into a regex.

    `*` and `?` do not match `/`; `[a-z]`, `[^a-z]` and `\\x` mean the same as in Go.
    """
    result, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/**/", at):  # any folders, twice
            at += 3
            continue
        if between := _BETWEEN_FOLDERS.match(pattern, at):
            result += f"(?>(?:.*?/)??{translate(between[1])})"
            at = between.end()
            continue
        if between := _BETWEEN_DOUBLE_STARS.match(pattern, at):
            result += f"(?>.*?{translate(between[1])})"
            at = between.end()
            continue
        if char == "*" and (between := _BETWEEN_STARS.match(pattern, at)):
            # The first place that fits is as good as any. Trying all takes exponential time.
            result += f"(?>[^/]*?{translate(between[1])})"
            at = between.end()
            continue
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
                result += "(?:.*/)?"
            else:
                result += ".*"
            continue
        if char == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            result += f"[{inside}]"
            at = end + 1
            continue
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            result += re.escape(pattern[at])
        else:
            result += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        at += 1
    return result
