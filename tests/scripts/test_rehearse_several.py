"""Merges in a fork with three services: GitHub's workflow and Cloud Build's files do the same.

All rehearsals share one prepared world, and each begins where the one before it ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.scripts.conftest import DOCKERFILE, LOCAL, MANIFEST, SERVER, SMOKE
from tests.scripts.rehearse_help import Runs, opened, results
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


class Merges(Runs):
    """Merges to main, each rehearsed by a trigger, in a world in which nothing is delivered yet."""

    def live(self) -> dict[str, str]:
        """Return ENVIRONMENT/SERVICE -> the short name of the commit that serves."""
        return {
            f"{where.split('/')[0]}/{where.split('/')[2]}": part["revisionName"][-7:]
            for where, service in self.world.services().items()
            for part in service["status"].get("traffic", ())
            if part.get("percent")
        }


@pytest.fixture
def merges(tmp_path: Path) -> Iterator[Merges]:
    fork, folder = Several(tmp_path / "fork"), tmp_path / "world"
    folder.mkdir()
    with opened(fork.folder, folder) as world:
        world.take_up()
        yield Merges(world)


def everywhere(**commits: str) -> dict[str, str]:
    return {f"{env}/{name}": c for env in ("staging", "production") for name, c in commits.items()}


def test_each_merge_delivers_what_it_touches(merges: Merges) -> None:
    """And a service that fails stops those that call it, and no other, in no environment."""
    one = merges.merge({"ai/settings.json": settings(note="one")})
    assert {*results(merges.github()).values()} == {"success"}, merges.told
    assert merges.live() == everywhere(ai=one)
    assert merges.told.count("the deployment's URL at GitHub: http://127.0.0.1:") == 2

    shared = merges.merge(
        {"common/notes.md": "more\n", "api/settings.json": settings(health="broken")}
    )
    ended = {"build": "success", "staging": "failure", "production": "success"}
    assert results(merges.github()) == ended, merges.told
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
    three = merges.merge({"ai/settings.json": settings(note="three")})
    ended = merges.cloud_build("deliver", _ENVIRONMENT="staging")
    assert ended["deliver"] == "FAILURE", "api was never delivered, so it is tried again"
    assert "api-" in merges.told.partition("is not known to be good")[0].splitlines()[-1]
    assert merges.live() == {**delivered, "staging/api": shared, "staging/ai": three}
    # Production takes of each what serves in staging, here of a commit that is not the newest.
    merges.merge({"README.md": "Ours.\n"})
    assert merges.cloud_build("deliver-after", _ENVIRONMENT="production")["deliver"] == "FAILURE"
    assert "api | ship: " in merges.told, "it has never served in staging"
    assert merges.live() == {
        **everywhere(ai=three, shop=shared), "staging/api": shared,
    }  # fmt: skip
