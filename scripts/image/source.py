"""Read a service's own files: those that say where it listens, and what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from scripts.machine import git

_CODE = re.compile(r".*\.(py|[mc]?js|ts|go|rb|java|kt|sh|json|txt|toml)", re.DOTALL)
_NAMES = ("Dockerfile", ".dockerignore", "Procfile")
_NOT_READ = ("package-lock.json",)
_MOST_BYTES = 256 * 1024
_MOST_FILES = 2_000
_LONGEST_LINE = 2_000  # longer ones are of no person's making


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The folder that is built.

    Attributes:
        names: the path of every file in it.
        texts: path -> text, of the files that hold code.
    """

    names: list[str]
    texts: dict[str, str]

    @property
    def code(self) -> dict[str, str]:
        """The texts of what runs, without its tests."""
        return {name: text for name, text in self.texts.items() if not _is_test(name)}


def read(folder: Path) -> Source:
    """Read the folder that is built, as the next commit would have it."""
    names = git.listed(folder, ".") if folder.is_dir() else []
    texts = {}
    wanted = [name for name in names if _CODE.fullmatch(name) or name in _NAMES]
    for name in wanted[:_MOST_FILES]:
        path = folder / name
        if "node_modules/" in name or path.name in _NOT_READ or path.is_symlink():
            continue
        try:
            if path.stat().st_size > _MOST_BYTES:
                continue
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if max(map(len, text.splitlines()), default=0) <= _LONGEST_LINE:
            texts[name] = text
    return Source(names=names, texts=texts)


def _is_test(name: str) -> bool:
    *folders, file = name.split("/")
    stem = file.partition(".")[0]
    return (
        any(one in ("test", "tests", "__tests__", "spec") for one in folders)
        or stem.startswith("test_")
        or stem.endswith("_test")
        or ".test." in file
        or ".spec." in file
    )
