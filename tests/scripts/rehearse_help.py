"""Many runs of workflows and build files in one prepared world, in which no run begins anew."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from scripts.command.progress import Progress
from scripts.machine import git, scratch
from scripts.rehearse import act, cloudbuild, play, workflow
from scripts.rehearse.act import JobEnd
from scripts.rehearse.world import World
from tests import warm
from tests.conftest import ROOT


class Runs:
    """Runs in a world, each of which begins where the one before it ended.

    Attributes:
        told: what the last run printed.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.told = ""
        self._runs = 0

    def merge(self, files: Mapping[str, str]) -> str:
        """Change files and commit; return the commit's short name."""
        self.world.before = git.commit(self.world.clone).sha
        for name, text in files.items():
            (self.world.clone / name).write_text(text)
        scratch.git("add", "--all", cwd=self.world.clone)
        scratch.git("commit", "--quiet", "--message", "a merge", cwd=self.world.clone)
        return git.commit(self.world.clone).short

    @contextmanager
    def merged(self, files: Mapping[str, str]) -> Iterator[None]:
        """Merge for a while."""
        here = git.commit(self.world.clone).sha
        self.merge(files)
        yield
        scratch.git("reset", "--quiet", "--hard", here, cwd=self.world.clone)

    def github(self, name: str = "deliver", *, fetch: bool = False, **inputs: str) -> list[JobEnd]:
        """Run a workflow, whose third-party actions act fetches on demand; return its jobs."""
        run = workflow.load(self.world.clone, name, inputs)
        actions = act.local(run.actions, None if fetch else ROOT / "tests" / "actions")
        with self._hear():
            return play(self.world, run, actions)

    def cloud_build(self, file: str, **substitutions: str) -> dict[str, str]:
        """Run a build file; return how each step ended."""
        self._runs += 1
        folder = self.world.folder / f"run-{self._runs}"
        folder.mkdir()
        with self._hear():
            path = f"cloudbuild/{file}.yaml"
            ends = cloudbuild.play(self.world, folder, path, substitutions, Progress())
        return {end.title: end.status for end in ends}

    @contextmanager
    def _hear(self) -> Iterator[None]:
        with redirect_stderr(io.StringIO()) as heard:
            try:
                yield
            finally:
                self.told = heard.getvalue()


def results(jobs: list[JobEnd]) -> dict[str, str]:
    """Return job -> result."""
    return {job.id: job.result for job in jobs}


@contextmanager
def opened(root: Path, folder: Path) -> Iterator[World]:
    """Open a world for the repository at `root`, whose commands run in forks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "prefix", warm.environment())
        patch.setattr(sys, "executable", f"{sys.prefix}/bin/python")
        patch.setenv("SHIPWAY_ACTOR", "someone")
        options: Any = {"builder": "cloud-build", "bake": "0s", "ref": "refs/heads/main"}
        with World(root, folder, **options) as world:
            yield world
