"""One verb over several services: order, failures, signals, outputs, one page, one grid."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.command.markdown import link
from scripts.several.summary import exit_code
from tests.conftest import ROOT, LocalCloudRun
from tests.emulator.cloud_run_help import eventually
from tests.scripts.several_help import Several
from tests.scripts.test_text import Screen

pytestmark = pytest.mark.xdist_group("several")  # its services are delivered once

ENVIRONMENTS = {
    "staging": {"project": "acme-staging"},
    "production": {"project": "acme-prod", "after": "staging", "confirm": "true"},
}


@pytest.fixture(scope="module")
def fork(local_cloud_run: LocalCloudRun, tmp_path_factory: pytest.TempPathFactory) -> Several:
    """Three delivered services, of which api calls ai."""
    folder = tmp_path_factory.mktemp("several") / "repository"
    made = Several(folder, local_cloud_run, environments=ENVIRONMENTS, calls={"api": ["ai"]})
    ended = made.project.ship("deliver", "--all")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    done = next(i for i, line in enumerate(lines) if _is_of(made, line, "ai", "done ("))
    began = next(i for i, line in enumerate(lines) if _is_of(made, line, "api", ""))
    assert done < began, ended.stderr
    return made


def _is_of(fork: Several, line: str, word: str, text: str) -> bool:
    name, _, said = line.partition("|")
    return name.strip() == fork.names[word] and said.strip().startswith(text)


def outputs(file: Path) -> dict[str, str]:
    lines = file.read_text().splitlines()
    assert len(lines) % 3 == 0
    return {lines[i].partition("<<")[0]: lines[i + 1] for i in range(0, len(lines), 3)}


def plan(fork: Several) -> list[str]:
    return fork.words(fork.project.done("plan", "--matrix")["services"])


def test_a_failure_stops_the_callers_alone(fork: Several, tmp_path: Path) -> None:
    """I5: the rest is delivered; the run page has the failure below the table."""
    before = fork.shares("ai"), fork.shares("api")
    fork.set("ai", start="exit")
    fork.set("api")
    fork.set("web")
    commit = fork.commit()
    assert plan(fork) == ["ai", "api", "web"]
    ended = fork.project.ship(
        "deliver", "--changed", "--format", "json",
        GITHUB_OUTPUT=str(tmp_path / "o"), GITHUB_STEP_SUMMARY=str(tmp_path / "p"),
    )  # fmt: skip
    fork.set("ai", start="listen")
    fork.commit()
    assert ended.returncode == 1, ended.stderr
    services = json.loads(ended.stdout)["services"]
    assert fork.words(services) == ["ai", "api", "web"]
    ai, api, web = services.values()
    assert "did not start" in ai["error"]["message"]
    assert api["error"]["message"] == f"not tried: {fork.names['ai']} failed"
    assert web["outcome"] == "delivered"
    assert (fork.shares("ai"), fork.shares("api")) == before
    assert fork.shares("web") == {f"{fork.names['web']}-{commit[:7]}": 100}
    assert outputs(tmp_path / "o")["delivered"] == fork.names["web"]
    url = outputs(tmp_path / "o")["deployment_url"]
    assert requests.get(url, timeout=20).ok, "of the only one that was delivered"
    assert link(fork.names["web"], url) in (tmp_path / "p").read_text()
    page = (tmp_path / "p").read_text()
    assert page.count("### ") == 2
    assert page.index("1 of 3 services done") < page.index("### Failed")
    assert ended.stderr.splitlines()[-1] == (
        f"ship: deliver: failed: {fork.names['ai']}; not tried: {fork.names['api']}"
    )
    # What is live counts: only web runs what the files say.
    assert plan(fork) == ["ai", "api"]


def test_a_rollback_does_not_stop_at_a_refusal(fork: Several) -> None:
    """Callers come first. 2 and 3 would promise that nothing changed."""
    before = fork.shares("web")
    ended = fork.project.ship("rollback", "--all", "--reason", "slow")
    assert ended.returncode == 1, ended.stderr
    results = [line.split()[:2] for line in ended.stdout.splitlines()[1:4]]
    assert results == [
        [fork.names["web"], "done"], [fork.names["api"], "refused"], [fork.names["ai"], "refused"],
    ]  # fmt: skip
    assert fork.shares("web") != before
    held = fork.project.done("status", fork.list("web"))["regions"][0]["hold"]
    assert held["why"] == "slow"
    assert fork.project.ship("resume", fork.list("web", "ai")).returncode == 0


def test_older_code_touches_nothing_that_is_newer(fork: Several, tmp_path: Path) -> None:
    """As `deliver` steps aside. A commit that a shallow clone lacks counts as changed."""
    git = fork.project.git
    git("checkout", "--quiet", "--detach", "HEAD^^")
    try:
        assert plan(fork) == []
        done = fork.project.done("deliver", "--changed")
        assert done == {"services": {}, "errors": []}
    finally:
        git("checkout", "--quiet", "main")
    git("clone", "--quiet", "--depth", "1", fork.folder.as_uri(), str(tmp_path / "shallow"))
    own, fork.project.folder = fork.project.folder, tmp_path / "shallow"
    try:
        ended = fork.project.ship("plan", "--matrix")
    finally:
        fork.project.folder = own
    assert ended.stdout.count("is not in this clone") == 3


def test_the_grid_shows_each_error_beside_the_rest(fork: Several) -> None:
    fault = {"name": "status", "code": 403, "path": f"*/services/{fork.names['api']}"}
    fork.project.cloud_run.local("POST", "faults", fault)
    try:
        ended = fork.project.ship("status", "--all")
    finally:
        fork.project.cloud_run.local("DELETE", "faults/status")
    assert ended.returncode == 1, ended.stderr
    head, ai, api, web, *_ = [line.split("  ") for line in ended.stdout.splitlines()]
    assert [cell.strip() for cell in head if cell] == ["SERVICE", "LOCAL", "STAGING", "PRODUCTION"]
    assert "not delivered" in ai[-1]
    assert any(cell.strip().startswith("403") for cell in api)
    assert any(cell.strip().endswith("100 %") for cell in web)
    one = fork.project.done("status", "--all", "--env", "local")["services"][fork.names["ai"]]
    assert one == fork.project.done("status", fork.names["ai"])


def test_logs_of_several_are_in_one_order(fork: Several) -> None:
    ended = fork.project.ship("logs", fork.list("ai", "web"))
    rows = [line.split() for line in ended.stdout.splitlines()[1:]]
    times = [row[1] for row in rows if row[0] in fork.names.values()]
    assert times == sorted(times)
    assert {row[0] for row in rows} >= {fork.names["ai"], fork.names["web"]}


def test_one_question_is_asked_for_all(fork: Several) -> None:
    screen = Screen(fork.project, "hold", fork.list("ai", "web"), "--env", "production")
    screen.until(b"[y/N] ")
    screen.type("n\n")
    code, text = screen.end()
    assert code == 3
    assert text.count("Go ahead?") == 1
    assert f"Hold in production: {fork.names['ai']}, {fork.names['web']}." in text


def test_a_dry_run_of_all_comes_before_any_delivery(fork: Several) -> None:
    """The caller's URL is not known yet. What is left out is reported once."""
    stray = fork.folder / "stray.txt"
    stray.write_text("uncommitted")
    ended = fork.project.ship(
        "deliver", "--all", "--dry-run", "--env", "staging", "--format", "json"
    )
    stray.unlink()
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("uncommitted") == 1
    new = fork.folder / "pipelines" / "new"
    shutil.copytree(fork.project.pipeline, new)
    early = fork.project.ship("deliver", "new", "--dry-run")
    shutil.rmtree(new)
    assert early.returncode == 2
    assert "pipelines/new/ is not in it" in early.stderr
    assert f"(the URL of {fork.names['ai']})" in ended.stdout
    alone = fork.project.ship("deliver", fork.names["api"], "--dry-run", "--env", "staging")
    assert alone.returncode == 2
    assert "which has not been delivered to staging" in alone.stderr


class Releasing:
    """Two services whose releases bake for a minute."""

    def __init__(self, fork: Several) -> None:
        fork.set("ai")
        fork.set("web")
        commit = fork.commit()
        self.fork = fork
        # A new Python: what it starts must be its own children.
        words = ("deliver", fork.list("ai", "web"), "--bake", "60s", "--format", "json")
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts"), *words], cwd=fork.project.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.revisions = {word: f"{fork.names[word]}-{commit[:7]}" for word in ("ai", "web")}
        eventually(lambda: all(self.shares(word) == 10 for word in ("ai", "web")))
        self.children = children(self.process.pid)
        assert len(self.children) == 2

    def shares(self, word: str) -> int:
        return self.fork.shares(word).get(self.revisions[word], 0)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


linux = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")


@pytest.fixture
def releasing(fork: Several) -> Iterator[Releasing]:
    made = Releasing(fork)
    yield made
    for pid in [made.process.pid, *made.children]:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    made.process.communicate(timeout=30)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_and_waits_for_them(releasing: Releasing, number: int) -> None:
    """I3: each service keeps the share that it had."""
    releasing.process.send_signal(number)
    out, err = releasing.process.communicate(timeout=30)
    assert releasing.process.returncode == 130, err
    assert not any(map(is_running, releasing.children))
    documents: dict[str, Any] = json.loads(out)["services"]
    assert [one["error"]["exit_code"] for one in documents.values()] == [130, 130]
    assert [releasing.shares(word) for word in ("ai", "web")] == [10, 10]


@pytest.fixture
def silent_builds(fork: Several) -> Iterator[None]:
    """No read of a build is answered: neither how it ended, nor which ones are to be cancelled."""
    local = fork.project.cloud_run.local
    local("POST", "faults", {"name": "hang", "path": "*/builds[/?]*", "seconds": 900})
    yield
    local("DELETE", "faults/hang")


@pytest.mark.usefixtures("silent_builds")
def test_a_second_ctrl_c_ends_what_the_first_one_waits_for(fork: Several) -> None:
    local = fork.project.cloud_run.local
    before = local("GET", "calls")["calls"][-1]["number"]

    def asked(what: str) -> int:
        calls = local("GET", f"calls?after={before}")["calls"]
        return sum(bool(re.search(what, call["path"])) for call in calls)

    for word in ("ai", "web"):
        fork.set(word)
    fork.commit()
    screen = Screen(fork.project, "build", fork.list("ai", "web"))
    eventually(lambda: asked(r"/builds/[\w-]+$") == 2)
    screen.type("\x03")
    eventually(lambda: asked(r"/builds\?filter") == 2)
    screen.type("\x03")
    code, text = screen.end()
    assert code == 130, text
    assert text.count("interrupted (") == 2
    assert asked(r"/builds\?filter") == 2  # neither gave up and asked again


@linux
def test_nothing_runs_on_when_the_command_is_killed(releasing: Releasing) -> None:
    releasing.process.kill()
    eventually(lambda: not any(map(is_running, releasing.children)))
    assert [releasing.shares(word) for word in ("ai", "web")] == [10, 10]


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        ([0, 0], 0), ([0, 1, 3], 1), ([3, 2], 2), ([3, 130], 3), ([0, 130], 130), ([0, 3], 1),
        ([0, 2], 1), ([1, 2, 3, 130], 1),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_worst(codes: list[int], worst: int) -> None:
    assert exit_code(codes) == worst


def test_where_there_is_nothing_to_promote_the_rest_counts(fork: Several) -> None:
    both = fork.list("ai", "web")
    fork.project.ship("promote", both, "--to", "100")
    ended = fork.project.ship("promote", both)
    assert ended.returncode == 3, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last == f"ship: promote: nothing to do: {both.replace(',', ', ')}"
    fork.set("web")
    fork.commit()
    for verb in ("build", "deploy"):
        assert fork.project.ship(verb, fork.names["web"]).returncode == 0
    done = fork.project.done("promote", both)
    assert done["errors"] == []
    ai, web = (done["services"][fork.names[word]] for word in ("ai", "web"))
    assert ai["error"]["message"].startswith("nothing to promote: ")
    assert "error" not in web


def test_a_job_delivers_no_caller_of_what_was_not_built(fork: Several, tmp_path: Path) -> None:
    dockerfile = fork.folder / fork.names["ai"] / "Dockerfile"
    text = dockerfile.read_text()
    dockerfile.unlink()
    fork.commit()
    ended = fork.project.ship("build", "--all", SHIPWAY_OUTPUTS=str(tmp_path))
    dockerfile.write_text(text)
    fork.commit()
    assert ended.returncode == 1, ended.stderr
    assert (tmp_path / "services").read_text() == fork.names["web"]
    assert f"{fork.names['api']}=sha256:" in (tmp_path / "digests").read_text()


def test_a_first_delivery_that_failed_is_tried_again(fork: Several) -> None:
    """It serves at once, before its checks: that it is live says nothing."""
    name = fork.names["late"] = f"{fork.names['ai']}-late"
    shutil.copytree(fork.folder / fork.names["ai"], fork.folder / name)
    shutil.copytree(fork.folder / "pipelines" / fork.names["ai"], fork.folder / "pipelines" / name)
    manifest = fork.folder / "pipelines" / name / "service.yaml"
    manifest.write_text(manifest.read_text().replace(fork.names["ai"], name))
    fork.set("late", code=500)
    commit = fork.commit()
    assert fork.project.ship("deliver", name).returncode == 1
    assert fork.shares("late") == {f"{name}-{commit[:7]}": 100}
    assert "late" in plan(fork)
    fork.set("late", code=200)
    fork.commit()
    assert fork.project.ship("deliver", name).returncode == 0
    assert "late" not in plan(fork)
    shutil.rmtree(fork.folder / "pipelines" / name)
    fork.commit()
