"""Merges in a fork with three services: GitHub's workflow and Cloud Build's files do the same.

All rehearsals share one prepared world, and each begins where the one before it ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.command.progress import Progress
from scripts.machine import git, scratch
from scripts.rehearse import act, cloudbuild, play, workflow
from scripts.rehearse.world import World
from tests.conftest import ROOT
from tests.scripts.conftest import DOCKERFILE, LOCAL, MANIFEST, SERVER, SMOKE
from tests.scripts.test_rehearse import ENVIRONMENT, Fork

ALL = ("ai", "api", "shop")


class Several(Fork):
    """A fork with ai, api, which calls ai, and shop. All three use the folder common."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for file in (ROOT / "cloudbuild").glob("deliver*.yaml"):
            self.write(f"cloudbuild/{file.name}", file.read_text())
        for name in ALL:
            self.write(f"pipelines/{name}/service.yaml", MANIFEST.format(name=name))
            self.write(f"pipelines/{name}/smoke.yaml", SMOKE)
            self.write(f"pipelines/{name}/local.yaml", LOCAL.format(endpoint="up"))
            for env, after in (("staging", ""), ("production", "after: staging")):
                text = ENVIRONMENT.format(env=env, after=after).replace("[10, 100]", "[100]")
                self.write(f"pipelines/{name}/{env}.yaml", text.replace("shop-", f"{name}-"))
            self.write(f"{name}/server.py", SERVER)
            self.write(f"{name}/Dockerfile", DOCKERFILE)
            self.write(f"{name}/settings.json", settings())
        relations = "calls: {api: [ai]}\nshared: {common: [ai, api, shop]}\n"
        self.write("pipelines/services.yaml", relations)
        self.write("common/notes.md", "first\n")
        self.commit("three services", health="ok")


def settings(health: str = "ok", note: str = "first") -> str:
    return json.dumps({"note": note, "start": "listen", "health": health, "code": 200})


class Merges:
    """Merges to main, each rehearsed by a trigger.

    Args:
        world: the world, in which nothing is delivered yet.
    """

    def __init__(self, world: World, capfd: Any) -> None:
        self.world = world
        self._capfd = capfd
        self._runs = 0
        self.told = ""

    def merge(self, **files: str) -> str:
        """Change files, whose names have _ for /, and commit; return the commit's short name."""
        self.world.before = git.commit(self.world.clone).sha
        for name, text in files.items():
            (self.world.clone / name.replace("__", "/").replace("_", ".")).write_text(text)
        scratch.git("add", "--all", cwd=self.world.clone)
        scratch.git("commit", "--quiet", "--message", "a merge", cwd=self.world.clone)
        return git.commit(self.world.clone).short

    def github(self) -> dict[str, str]:
        """Run deliver.yml; return how each job ended."""
        deliver = workflow.load(self.world.clone, "deliver", {})
        actions = act.local(deliver.actions, ROOT / "tests" / "actions")
        ends = play(self.world, deliver, actions)
        self.told = self._capfd.readouterr().err
        return {end.id: end.result for end in ends}

    def cloud_build(self, file: str, env: str) -> str:
        """Run a trigger of Cloud Build; return how its last step ended."""
        self._runs += 1
        folder = self.world.folder / f"run-{self._runs}"
        folder.mkdir()
        ends = cloudbuild.play(
            self.world, folder, f"cloudbuild/{file}.yaml", {"_ENVIRONMENT": env}, Progress()
        )
        self.told = self._capfd.readouterr().err
        return ends[-1].status

    def live(self) -> dict[str, str]:
        """Return ENVIRONMENT/SERVICE -> the short name of the commit that serves."""
        return {
            f"{where.split('/')[0]}/{where.split('/')[2]}": part["revisionName"][-7:]
            for where, service in self.world.services().items()
            for part in service["status"].get("traffic", ())
            if part.get("percent")
        }


@pytest.fixture
def merges(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Merges]:
    fork, folder = Several(tmp_path / "fork"), tmp_path / "world"
    folder.mkdir()
    world = World(fork.folder, folder, builder="cloud-build", bake="0s", ref="refs/heads/main")
    with world:
        world.take_up()
        yield Merges(world, capfd)


def everywhere(**commits: str) -> dict[str, str]:
    return {f"{env}/{name}": c for env in ("staging", "production") for name, c in commits.items()}


def test_each_merge_delivers_what_it_touches(merges: Merges) -> None:
    """And a service that fails stops those that call it, and no other, in no environment."""
    one = merges.merge(ai__settings_json=settings(note="one"))
    assert {*merges.github().values()} == {"success"}, merges.told
    assert merges.live() == everywhere(ai=one)
    assert merges.told.count("the deployment's URL at GitHub: http://127.0.0.1:") == 2

    shared = merges.merge(common__notes_md="more\n", api__settings_json=settings(health="broken"))
    ended = {"build": "success", "staging": "failure", "production": "success"}
    assert merges.github() == ended, merges.told
    delivered = everywhere(ai=shared, shop=shared)
    assert merges.live() == {**delivered, "staging/api": shared}, "its first revision serves"
    said = merges.told.partition("staging / Deploy")[2]
    runs = (
        r"production \| the deployment's URL at GitHub: https://github.com/\S+/actions/runs/\d+\n"
    )
    assert re.search(runs, merges.told), "of several services"
    assert said.index("ai   | done") < said.index("api  | deploy"), "callees come first"
    for name in ALL:
        assert f"/services/{name}\n" in merges.told, "one signature names all of them"

    # Cloud Build's triggers compare with what is live.
    three = merges.merge(ai__settings_json=settings(note="three"))
    assert merges.cloud_build("deliver", "staging") == "SUCCESS", merges.told
    assert merges.live() == {**delivered, "staging/api": shared, "staging/ai": three}
    # Production takes of each what serves in staging, here of a commit that is not the newest.
    merges.merge(README_md="Ours.\n")
    assert merges.cloud_build("deliver-after", "production") == "FAILURE"
    assert "api | ship: " in merges.told, "it has never served in staging"
    assert merges.live() == {
        **everywhere(ai=three, shop=shared), "staging/api": shared,
    }  # fmt: skip
