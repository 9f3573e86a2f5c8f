"""Check what the files declare against what Cloud Run takes, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from scripts.config import limits, sidecars
from scripts.config.limits import Problem
from scripts.config.pipelines import Pipeline
from scripts.config.yamlfile import YamlFile, dotted
from scripts.errors import UsageError
from scripts.release.manifest import overlay

_OVERLAY = "overlay"


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A problem, and the line of the file that has it.

    Attributes:
        found: the problem, after file, line and key.
        fix: what to write, and in which line.
        refused: whether Cloud Run certainly refuses it.
    """

    found: str
    fix: str
    refused: bool


class Files:
    """The two files that declare a service: service.yaml, and the environment's overlay."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._own = self._file(pipeline, "service")
        self._over = self._file(pipeline, pipeline.env)
        # Merged over nothing, it has no nulls left.
        self.service = overlay({}, overlay(pipeline.manifest, pipeline.overlay))

    def _file(self, pipeline: Pipeline, name: str) -> YamlFile:
        relative = Path("pipelines", pipeline.service, f"{name}.yaml")
        return YamlFile(pipeline.root / relative, str(relative))

    def place(self, path: limits.Path) -> tuple[str, str]:
        """Return FILE:LINE, and the key, of a value of the service: the overlay's, if it has it."""
        for file, prefix in ((self._over, [_OVERLAY]), (self._own, [])):
            own = self._own_path(file.data, prefix, path)
            if own is not None:
                return f"{file.name}:{file.line(own)}", dotted(own)
        # A default, which no file has: the nearest line that there is.
        return f"{self._own.name}:{self._own.line([*path])}", dotted(path)

    def _own_path(self, data: Any, prefix: list[str], path: limits.Path) -> list[str | int] | None:
        """Return a value's path in a file: lists of named items are merged by name."""
        found: list[str | int] = [*prefix]
        value: Any = data.get(_OVERLAY) if prefix else data
        merged: Any = self.service
        for step in path:
            merged = merged[step] if _has(merged, step) else None
            if isinstance(step, int) and isinstance(value, list):
                step = _index(value, step, merged)
            if not _has(value, step):
                return None
            value = value[step]
            found.append(step)
        return found


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def _index(items: list[Any], index: int, merged: Any) -> int:
    """Return where the item of the merged list is in a file's own list."""
    name = merged.get("name") if isinstance(merged, dict) else None
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    return names.index(name) if name in names else (len(items) if any(names) else index)


def problems(pipeline: Pipeline) -> list[Placed]:
    """Return every value that Cloud Run does not take, with its line and what to write."""
    files = Files(pipeline)
    found = [*limits.problems(files.service), *sidecars.problems(files.service)]
    return [_placed(files, one) for one in found]


def _placed(files: Files, problem: Problem) -> Placed:
    where, key = files.place(problem.path)
    fix = f"{where}: write {problem.write}" if problem.write else f"{where}: remove {key}"
    return Placed(found=f"{where}: {key}: {problem.found}", fix=fix, refused=problem.refused)


def check(pipeline: Pipeline) -> None:
    """Refuse a service that Cloud Run would refuse.

    Raises:
        UsageError: names file, line and key, and what to write; the evidence names the others.
    """
    found = [one for one in problems(pipeline) if one.refused]
    if found:
        raise UsageError(
            found[0].found,
            f"{found[0].fix}; to list all problems: ./ship doctor {pipeline.where}",
            evidence=[one.found for one in found[1:]],
        )
