"""`./ship demo` in a fresh clone: the whole product in one command."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import ROOT, needs_sample, share_packed

pytestmark = [needs_sample, pytest.mark.xdist_group("demo")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone of this project's work tree, with one commit."""
    folder = tmp_path_factory.mktemp("demo") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), folder], check=True)
    files = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, files.split("\0")):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
        else:
            target.unlink(missing_ok=True)
    for command in (
        ["add", "--all"],
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet",
         "--allow-empty", "--message", "as it is"],
    ):  # fmt: skip
        subprocess.run(["git", *command], cwd=folder, check=True)
    share_packed(folder)
    return folder


@pytest.fixture(scope="module")
def told(clone: Path) -> str:
    """Return the demo's output without a terminal."""
    ended = subprocess.run(
        [str(clone / "ship"), "demo", "--bake", "1s"], cwd=clone,
        env={**os.environ, "SHIPWAY_VENV": warm.environment(), "TMPDIR": str(clone.parent)},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout


class TestDemo:
    def test_tells_the_whole_story(self, told: str) -> None:
        for chapter in (
            "1. The first release",
            "2. A good release: 10 %, 50 %, 100 % under a steady load",
            "3. A broken release: its health check answers wrongly",
            "did not pass its smoke checks",
            "4. A release that never listens on $PORT",
            "the container's last log lines:",
            "Listening at: http://127.0.0.1:",
            "5. A release manager promotes, and rolls back",
            "$ ./ship rollback --reason 'customers see errors'",
            "6. The next release meets the hold",
            "is on hold: rollback-",
        ):
            assert chapter in told

    def test_no_request_fails(self, told: str) -> None:
        """I3, I5: through every traffic change."""
        table = told.split("EXIT CODE")[1].splitlines()[1:]
        rows = [re.split(r"\s{2,}", line) for line in table if line.strip()]
        assert [row[5] for row in rows] == ["0", "0", "1", "1", "0", "0", "0", "3", "0", "0"]
        assert {row[4] for row in rows} == {"0"}, "failed requests"
        assert int(rows[1][3]) > 60

    def test_each_step_is_seen_as_it_was_planned(self, told: str) -> None:
        """Within 3 points of its weight, or 6 requests: the split is even."""
        rows = re.findall(
            r"^\S+-[0-9a-f]{7} +(\d+) % +([\d.]+) % +(\d+) +(\d+)$", told, re.MULTILINE
        )
        steps = [(int(w), float(seen), int(of), int(bad)) for w, seen, of, bad in rows]
        assert {10, 50, 90, 100} <= {weight for weight, *_ in steps}
        for weight, seen, of, bad in steps[1:]:
            assert abs(seen - weight) <= max(3, 600 / of)
            assert bad == 0

    def test_no_user_reaches_a_broken_revision(self, told: str) -> None:
        """I4."""
        reached = re.findall(r"(\d+) of (\d+) user requests reached \S+-[0-9a-f]{7}", told)
        assert len(reached) == 2
        assert all(int(who) == 0 < int(of) for who, of in reached)

    def test_leaves_nothing_behind(self, told: str, clone: Path) -> None:
        assert not list(clone.parent.glob("shipway-*"))
        status = subprocess.check_output(["git", "status", "--porcelain"], cwd=clone, text=True)
        assert status == ""


def test_a_fork_with_another_app_gets_an_error(clone: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    subprocess.run(["git", "clone", "--quiet", clone.as_uri(), fork], check=True)
    page = fork / "app/web/templates/index.html"
    page.write_text(page.read_text().replace("answering now", "ours"))
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "ours"],
        cwd=fork, check=True,
    )  # fmt: skip
    ended = subprocess.run(
        [str(fork / "ship"), "demo"], cwd=fork,
        env={**os.environ, "SHIPWAY_VENV": warm.environment()},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "app/web/templates/index.html does not contain" in ended.stderr
    assert "./ship deliver --yes" in ended.stderr


def test_outside_a_repository_it_is_an_error(clone: Path, tmp_path: Path) -> None:
    copied = tmp_path / "unzipped"
    subprocess.run(["git", "clone", "--quiet", clone.as_uri(), copied], check=True)
    subprocess.run(["rm", "-rf", str(copied / ".git")], check=True)
    ended = subprocess.run(
        [str(copied / "ship"), "demo"], cwd=copied,
        env={**os.environ, "SHIPWAY_VENV": warm.environment(),
             "GIT_CEILING_DIRECTORIES": str(copied.parent)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "is not a git repository" in ended.stderr
