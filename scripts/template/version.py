"""The version of Shipway that runs: the line in the file VERSION beside this one."""

from __future__ import annotations

from pathlib import Path


def current() -> str:
    """Return the version, such as "0.2.0"."""
    return Path(__file__).with_name("VERSION").read_text(encoding="utf-8").strip()
