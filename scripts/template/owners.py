"""Who owns a file: the fork, Shipway, or both (owners.toml)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

Owner = Literal["fork", "shipway", "shared"]

PATH = "scripts/template/owners.toml"
"""The file's path in the repository, in every version from 0.2.0 on."""


class Owners:
    """The three lists of owners.toml.

    Args:
        text: the contents of the file.
    """

    def __init__(self, text: str) -> None:
        lists = tomllib.loads(text)
        self.names: dict[str, Owner] = {}
        kinds: tuple[Owner, ...] = ("fork", "shipway", "shared")
        for owner in kinds:
            for name in lists[owner]:
                if name in self.names:
                    raise ValueError(f"{PATH}: {name} has two owners")
                self.names[name] = owner

    def name_for(self, path: str) -> str | None:
        """Return the longest name in the lists that fits a path, or None."""
        if path in self.names:
            return path
        folder = path
        while folder := folder.rpartition("/")[0]:
            if f"{folder}/" in self.names:
                return f"{folder}/"
        return None

    def of(self, path: str) -> Owner:
        """Return who owns a file, given its path from the repository's root."""
        name = self.name_for(path)
        return self.names[name] if name else "fork"


def current() -> Owners:
    """Return the owners in the version that runs."""
    return Owners(Path(__file__).with_name("owners.toml").read_text(encoding="utf-8"))
