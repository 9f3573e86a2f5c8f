"""The folder in .shipway/ that an upgrade works in. Removes the remains of a killed upgrade."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.errors import Refused
from scripts.upgrade.repository import Repository

_TREE = "shipway-upgrade"
_LINES = 15  # of a failed check's output


@contextmanager
def alone(root: Path) -> Iterator[Path]:
    """Keep other upgrades of this repository out; yield an empty scratch folder.

    Raises:
        Refused: another upgrade is running.
    """
    state = root / ".shipway"
    state.mkdir(exist_ok=True)
    folder = state / "upgrade"
    with (state / "upgrade.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused("another ./ship upgrade is running here: nothing changed") from None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check(repository: Repository, folder: Path, commit: str) -> list[str]:
    """Run `./ship check` on a commit, in a work tree of its own.

    Args:
        repository: the fork.
        folder: the scratch folder.
        commit: the commit.

    Returns:
        The last lines that it printed where it fails; none where it passes.
    """
    tree = folder / _TREE
    # A killed upgrade may have left the name behind, locked: -f -f takes it over.
    words = ("worktree", "add", "--quiet", "--detach", "-f", "-f", str(tree), commit)
    repository.git(*words)
    try:
        done = subprocess.run(
            ["./ship", "check"], cwd=tree, env=_environment(tree), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False,
        )  # fmt: skip
    except OSError as error:
        return [f"./ship check: {error}"]
    finally:
        repository.git("worktree", "remove", "-f", "-f", str(tree))
    if done.returncode == 0:
        return []
    return done.stdout.strip().splitlines()[-_LINES:] or [f"exit code {done.returncode}"]


def _environment(tree: Path) -> dict[str, str]:
    """Return the environment; with this Python's packages if the commit needs the same ones."""
    environment = dict(os.environ)
    installed = Path(sys.prefix) / "has-dev.txt"
    wanted = tree / "requirements" / "dev.txt"
    if installed.is_file() and wanted.is_file() and installed.read_bytes() == wanted.read_bytes():
        environment["SHIPWAY_VENV"] = sys.prefix
    return environment
