"""Which services a change touches, by git alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.config.sources import SOURCE
from tests.conftest import LocalCloudRun
from tests.scripts.several_help import Several

ALL = ["ai", "api", "web"]


@pytest.fixture(scope="module")
def fork(local_cloud_run: LocalCloudRun, tmp_path_factory: pytest.TempPathFactory) -> Several:
    """Three services: api calls ai, ai and web share a folder, api is built from src/back."""
    folder = tmp_path_factory.mktemp("touched") / "repository"
    made = Several(folder, local_cloud_run)
    for name in (
        "libs/common/a.py", "libs/common/b.py", "libs/other/a.py", "src/back/main.py",
        "proxy/Dockerfile",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    made.relate({"api": ["ai"]}, {"libs/common": ["ai", "web"]})
    manifest = folder / "pipelines" / made.names["api"] / "service.yaml"
    annotations = f"  annotations: {{{SOURCE}: src/back, {SOURCE}.proxy: proxy/}}\nspec:"
    manifest.write_text(manifest.read_text().replace("spec:", annotations, 1))
    made.commit()
    return made


def touched(fork: Several, since: str) -> list[str]:
    done = fork.project.done("plan", "--matrix", "--since", since)
    assert [one["service"] for one in done["include"]] == done["services"]
    return fork.words(done["services"])


def write(path: str) -> Callable[[Several], None]:
    def change(fork: Several) -> None:
        file = fork.folder / path.format(**fork.names)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.read_text() if file.exists() else ''}\n# changed\n")

    return change


def move(fork: Several) -> None:
    web, ai = (fork.folder / fork.names[word] for word in ("web", "ai"))
    (web / "server.py").rename(ai / "moved.py")


def delete(fork: Several) -> None:
    (fork.folder / "libs/common/a.py").unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (write("{ai}/server.py"), ["ai"]),
        (write("{ai}-more/server.py"), []),
        (write("pipelines/{web}/smoke.yaml"), ["web"]),
        (write("{api}/server.py"), []),
        (write("src/back/main.py"), ["api"]),
        (write("proxy/nginx.conf"), ["api"]),
        (write("libs/common/a.py"), ["ai", "web"]),
        (write("libs/other/a.py"), []),
        (write("scripts/deliver.py"), []),
        (write("README.md"), []),
        (move, ["ai", "web"]),
        (delete, ["ai", "web"]),
        (lambda fork: fork.relate({}, {"libs/common": ["ai", "web"]}), ["api"]),
        (lambda fork: fork.relate({"api": ["ai"]}, {"libs/common": ["web"]}), ["ai"]),
        (write("pipelines/services.yaml"), []),
    ],
)  # fmt: skip
def test_a_change_touches(
    fork: Several, change: Callable[[Several], None], expected: list[str]
) -> None:
    change(fork)
    fork.commit()
    try:
        assert touched(fork, "HEAD^") == expected
    finally:
        fork.project.git("revert", "--no-edit", "HEAD")


def test_an_unknown_commit_touches_every_service(fork: Several) -> None:
    for since in ("HEAD..HEAD^", "0" * 40, "1" * 40, "no-such-branch", "--output=x"):
        ended = fork.project.ship("plan", "--matrix", f"--since={since}", "--format", "json")
        assert fork.words(json.loads(ended.stdout)["services"]) == ALL
        assert f"every service: this clone has no commit {since}" in ended.stderr


def test_a_merge_commit_counts_by_its_first_parent(fork: Several) -> None:
    git = fork.project.git
    git("checkout", "--quiet", "-b", "feature")
    fork.set("ai")
    fork.commit()
    git("checkout", "--quiet", "main")
    fork.set("web")
    fork.commit()
    git("merge", "--quiet", "--no-ff", "--no-edit", "feature")
    assert touched(fork, "HEAD^") == ["ai"]
    assert touched(fork, "HEAD^2") == ["web"]


def test_a_deleted_service_is_not_listed(fork: Several, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(fork.folder), str(tmp_path / "c")], check=True)
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "--quiet"]
    web = fork.names["web"]
    for words in (["rm", "-r", "--quiet", web, f"pipelines/{web}"], [*commit[1:], "-am", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path / "c", check=True)
    (tmp_path / "c/pipelines/services.yaml").write_text("")
    subprocess.run(["git", *commit[1:], "-am", "y"], cwd=tmp_path / "c", check=True)
    own, fork.project.folder = fork.project.folder, tmp_path / "c"
    try:
        assert touched(fork, "HEAD^^") == ["ai", "api"]
    finally:
        fork.project.folder = own


def test_a_job_gets_the_list_and_the_matrix(fork: Several, tmp_path: Path) -> None:
    fork.project.ship("plan", "--matrix", "--since", "0" * 40, GITHUB_OUTPUT=str(tmp_path / "o"))
    lines = (tmp_path / "o").read_text().splitlines()
    values = {lines[i].partition("<<")[0]: lines[i + 1] for i in range(0, len(lines), 3)}
    assert values["services"] == fork.list(*ALL)
    assert json.loads(values["matrix"]) == {
        "include": [
            {"service": fork.names["ai"], "after": []},
            {"service": fork.names["api"], "after": [fork.names["ai"]]},
            {"service": fork.names["web"], "after": []},
        ]
    }


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["plan", "--since", "HEAD"], "--since belongs to --matrix"),
        (["plan", "--matrix", "--all"], "--matrix itself finds the services"),
        (["deliver", "--since", "HEAD"], "--since belongs to --changed"),
        (["deliver", "--changed", "--all"], "--changed itself finds the services"),
        (["rollback"], "name the service: "),
        (["rollback", ""], "name the service: "),
        (["promote", "--all"], "name the service: "),
        (["hold", "{ai},{ai}"], "{ai} is named twice"),
        (["hold", "{ai}", "--all"], "--all means every service, and {ai} is named as well"),
        (["hold", "{ai}", "nope"], "no service 'nope'"),
        (["hold", "{ai}", "{web}", "--env", "x"], "no environment 'x'"),
        (["hold", "--all", "--env", "x"], "no service has the environment 'x'"),
        (["logs", "{ai},{api}", "--follow"], "--follow is about one service"),
        (["status", "--all", "--watch"], "--watch is about one service"),
        (["rollback", "--all", "--to", "x-1"], "--to names a revision of one service"),
        (["deploy", "{ai},{web}", "--digest", "sha256:" + "a" * 64], "names no image of {ai}"),
        (["deploy", "{ai},{web}", "--digest", "{ai}=sha256:1"], "is not a digest"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_error(fork: Several, words: list[str], problem: str) -> None:
    ended = fork.project.ship(*(word.format(**fork.names) for word in words))
    assert ended.returncode == 2, ended.stderr
    assert problem.format(**fork.names) in ended.stderr
    assert sum(line.startswith("ship: ") for line in ended.stderr.splitlines()) == 1
