"""Read all of pipelines/, show what would change, and replace it in one step."""

from __future__ import annotations

import ctypes
import difflib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.config import pipelines, relations, yamledit
from scripts.errors import Refused

Files = dict[str, str]
"""Path, relative to the repository's root -> text."""

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2), RENAME_SWAP of renamex_np(2)
_HERE = -100  # AT_FDCWD
_OUTSIDE = (
    ".github/CODEOWNERS",
    ".github/dependabot.yml",
    ".github/workflows/deliver.yml",
    ".github/workflows/watch.yml",
)


def read(root: Path) -> Files:
    """Read the text files of pipelines/, and the files outside that follow from them."""
    found = {}
    for path in sorted((root / "pipelines").rglob("*")):
        if path.is_file():
            with suppress(UnicodeDecodeError):
                found[str(path.relative_to(root))] = path.read_text(encoding="utf-8")
    for name in _OUTSIDE:
        if (root / name).is_file():
            found[name] = (root / name).read_text(encoding="utf-8")
    return found


def diff(before: Files, after: Files, renamed: dict[str, str]) -> list[str]:
    """Return the lines of a diff, in git's format.

    Args:
        before: the current files.
        after: the new files.
        renamed: new path -> old path.
    """
    lines: list[str] = []
    gone = {path for path in before if path not in after} - set(renamed.values())
    for path in sorted({*after, *gone}):
        old = renamed.get(path, path)
        was, now = before.get(old, ""), after.get(path, "")
        if old != path:
            lines.append(f"rename {old} -> {path}")
        if was != now:
            names = (f"a/{old}" if old in before else "/dev/null",
                     f"b/{path}" if path in after else "/dev/null")  # fmt: skip
            lines += difflib.unified_diff(
                was.splitlines(), now.splitlines(), *names, n=1, lineterm=""
            )
    return lines


@contextmanager
def alone(root: Path) -> Iterator[Path]:
    """Hold the lock of `init`, and give a scratch folder on the same file system.

    Raises:
        Refused: another `init` is running here.
    """
    scratch = root / ".shipway"
    scratch.mkdir(exist_ok=True)
    with (scratch / "init.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused("another ./ship init is running here: nothing changed") from None
        _recover(root, scratch)
        with TemporaryDirectory(dir=scratch, prefix="init-") as folder:
            yield Path(folder)


def _recover(root: Path, scratch: Path) -> None:
    """Restore the old files after a kill, and delete the scratch folders that it left."""
    for left in scratch.glob("init-*"):
        if not (root / "pipelines").exists() and (left / "aside").is_dir():
            (left / "aside").rename(root / "pipelines")
        shutil.rmtree(left, ignore_errors=True)


def stage(root: Path, folder: Path, before: Files, after: Files) -> None:
    """Write the new pipelines/ to `folder`, and check it as every verb does.

    Raises:
        UsageError: a new file is wrong. Nothing has changed.
    """
    shutil.copytree(root / "pipelines", folder / "pipelines", symlinks=True)
    for path in before.keys() - after.keys():
        (folder / path).unlink()
    for path, text in after.items():
        if path.startswith("pipelines/"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    for left in sorted((folder / "pipelines").rglob("*"), reverse=True):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()
    for service in pipelines.services(folder):
        for env in pipelines.environments(folder, service):
            pipelines.load(folder, service, env)
    _share(root, folder)
    relations.read(folder)


def _share(root: Path, folder: Path) -> None:
    """Make the shared folders, empty, where services.yaml is checked."""
    text = (folder / relations.FILE).read_text() if (folder / relations.FILE).exists() else ""
    shared = yamledit.get(text, ["shared"])
    inside = root.resolve()
    for name in shared if isinstance(shared, dict) else ():
        place = (root / str(name)).resolve()
        if place.is_dir() and place.is_relative_to(inside):
            (folder / place.relative_to(inside)).mkdir(parents=True, exist_ok=True)


def put(root: Path, folder: Path, before: Files, after: Files) -> None:
    """Put the files that `stage` wrote in place, pipelines/ in one step.

    Raises:
        Refused: a file changed since it was read.
    """
    if read(root) != before:
        raise Refused("the files changed in the meantime: nothing was written", "run it again")
    exchange(folder / "pipelines", root / "pipelines", folder / "aside")
    for path, text in after.items():
        if not path.startswith("pipelines/") and before.get(path) != text:
            made = folder / "file"
            made.write_text(text, encoding="utf-8")
            shutil.copymode(root / path, made)
            made.replace(root / path)


def exchange(new: Path, current: Path, aside: Path) -> None:
    """Swap two folders in one system call, or in two renames if the system has no such call.

    Args:
        new: the new folder.
        current: the folder to replace.
        aside: where `current` goes meanwhile, in the case of two renames.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(new), os.fsencode(current)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
            return
    elif hasattr(libc, "renamex_np") and libc.renamex_np(*names, _EXCHANGE) == 0:
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        current.rename(aside)
        new.rename(current)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
