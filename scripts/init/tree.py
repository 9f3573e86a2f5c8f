"""All of pipelines/ at once: what is there, what shall be, the difference, and the exchange."""

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

from scripts.config import pipelines
from scripts.errors import Refused

Files = dict[str, str]
"""Path below the repository's root -> text."""

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2), RENAME_SWAP of renamex_np(2)
_HERE = -100  # AT_FDCWD
_OUTSIDE = (
    ".github/CODEOWNERS",
    ".github/dependabot.yml",
    ".github/workflows/deliver.yml",
    "cloudbuild/deliver.yaml",
)


def read(root: Path) -> Files:
    """Every text file of pipelines/, and those outside that follow from them."""
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
    """What changes, as git shows it.

    Args:
        before: the files that are there.
        after: the files that shall be.
        renamed: new path -> the old one that it comes from.
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
    """The only init that is under way here; a scratch folder beside what it will replace.

    Raises:
        Refused: another one is under way.
    """
    scratch = root / ".shipway"
    scratch.mkdir(exist_ok=True)
    with (scratch / "init.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused("another ./ship init is under way here: nothing was changed") from None
        _recover(root, scratch)
        with TemporaryDirectory(dir=scratch, prefix="init-") as folder:
            yield Path(folder)


def _recover(root: Path, scratch: Path) -> None:
    """After a kill in the middle: what was there is put back, what was half made goes."""
    for left in scratch.glob("init-*"):
        if not (root / "pipelines").exists() and (left / "aside").is_dir():
            (left / "aside").rename(root / "pipelines")
        shutil.rmtree(left, ignore_errors=True)


def stage(root: Path, folder: Path, before: Files, after: Files) -> None:
    """Make the new pipelines/ in `folder`, and check it as every verb will.

    Raises:
        UsageError: it would not be right; nothing has been changed.
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


def put(root: Path, folder: Path, before: Files, after: Files) -> None:
    """Put what `stage` made in place: pipelines/ in one step, so that it is the old or the new.

    Raises:
        Refused: somebody changed a file meanwhile.
    """
    if read(root) != before:
        raise Refused("the files were changed meanwhile: nothing was written", "run it again")
    exchange(folder / "pipelines", root / "pipelines", folder / "aside")
    for path, text in after.items():
        if not path.startswith("pipelines/") and before.get(path) != text:
            made = folder / "file"
            made.write_text(text, encoding="utf-8")
            shutil.copymode(root / path, made)
            made.replace(root / path)


def exchange(new: Path, there: Path, aside: Path) -> None:
    """Swap two folders in one system call; in two renames where the system has none.

    Args:
        new: what shall be at `there`.
        there: what is replaced.
        aside: where `there` goes meanwhile, if it takes two.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(new), os.fsencode(there)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
            return
    elif hasattr(libc, "renamex_np") and libc.renamex_np(*names, _EXCHANGE) == 0:
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        there.rename(aside)
        new.rename(there)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
