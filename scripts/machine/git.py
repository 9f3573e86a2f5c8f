"""What git says: which commit, its files, and what is not committed."""

from __future__ import annotations

import getpass
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from scripts.errors import UsageError


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit: full SHA, the time it was made (Unix seconds), and its first line."""

    sha: str
    time: int
    subject: str

    @property
    def short(self) -> str:
        """The seven digits that people read."""
        return self.sha[:7]


def _git(root: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True)
    except FileNotFoundError:
        raise UsageError("git is not installed") from None
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        if any("not a git repository" in line for line in message):
            raise UsageError(
                f"{root} is not a git repository: Shipway delivers commits",
                "git init && git add -A && git commit, or clone the repository",
            ) from None
        first = next((line for line in message if line.startswith("fatal:")), message[-1])
        raise UsageError(f"git {arguments[0]}: {first}") from None
    return done.stdout


def commit(root: Path, reference: str = "HEAD") -> Commit:
    """The commit that a reference names.

    Raises:
        UsageError: there is no repository, or no such commit.
    """
    try:
        line = _git(
            root,
            "show",
            "-s",
            "--format=%H%x00%ct%x00%s",
            "--end-of-options",
            f"{reference}^{{commit}}",
            "--",
        )
    except UsageError as error:
        if "not a git repository" in error.message or "not installed" in error.message:
            raise
        if "dubious ownership" in error.message:
            raise UsageError(
                error.message, f"git config --global --add safe.directory {root}"
            ) from None
        if "bad revision" not in error.message:
            raise
        if reference == "HEAD":
            raise UsageError("there is no commit yet", "git add -A && git commit") from None
        raise UsageError(f"--commit {reference}: no such commit here", "git fetch?") from None
    sha, time, subject = line.decode(errors="replace").strip().split("\0", 2)
    return Commit(sha=sha, time=int(time), subject=subject)


def is_newer(root: Path, commit: str, than: str) -> bool | None:
    """Whether `commit` is a descendant of `than`; None where this clone does not know it.

    Args:
        root: the repository.
        commit: what a service says of itself, and so anything at all.
        than: the full SHA of a commit that is there.
    """
    if commit == than or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        return False
    done = subprocess.run(
        ["git", "-C", str(root), "merge-base", "--is-ancestor", than, commit],
        capture_output=True, check=False,
    )  # fmt: skip
    # Source: git-merge-base(1): 0 it is, 1 it is not, anything else is an error.
    return {0: True, 1: False}.get(done.returncode)


def merge_base(root: Path, one: str, other: str) -> str | None:
    """The commit that two references parted at; None where this clone knows none."""
    try:
        return _git(root, "merge-base", one, other).decode().split()[0]
    except UsageError:
        return None


def parent(root: Path, commit: str) -> str | None:
    """A commit's first parent; None where it has none, or this clone does not know it."""
    try:
        return (
            _git(root, "rev-parse", "--verify", "--quiet", f"{commit}^1^{{commit}}")
            .decode()
            .strip()
        )
    except UsageError:
        return None


def ancestors(root: Path, commit: Commit, most: int) -> list[str]:
    """The full SHAs of the commits before a commit on its branch, newest first.

    Fewer than `most` where the clone does not go back so far; none in one of a single commit.
    """
    log = _git(root, "rev-list", "--first-parent", f"--max-count={most + 1}", commit.sha)
    return log.decode().split()[1:]


def uncommitted(root: Path) -> int:
    """How many files differ from HEAD or are not in git, below `root`."""
    return len(_git(root, "status", "--porcelain", "--", ".").splitlines())


def has_origin(root: Path) -> bool:
    """Whether the repository has a remote called origin, wherever it is."""
    try:
        return "origin" in _git(root, "remote").decode().split()
    except UsageError:
        return False


def origin(root: Path) -> str:
    """The repository's web address, "" where it has no remote called origin."""
    try:
        url = _git(root, "remote", "get-url", "origin").decode().strip()
    except UsageError:
        return ""
    if url.startswith("git@"):
        url = "https://" + url.removeprefix("git@").replace(":", "/", 1)
    # A remote's address may carry a token: an image label must not (I9).
    scheme, _, rest = url.partition("://")
    if scheme not in ("https", "http", "ssh"):
        return ""  # a folder of somebody's machine
    return f"https://{rest.rpartition('@')[2]}".removesuffix(".git")


@contextmanager
def checkout(root: Path, commit: Commit) -> Iterator[Path]:
    """A scratch folder with the commit's files, gone afterwards.

    What is delivered is what is committed: files and configuration alike.
    """
    files = _git(root, "ls-tree", "-r", "--full-tree", commit.sha).decode(errors="replace")
    modules = [line.partition("\t")[2] for line in files.splitlines() if line.startswith("160000 ")]
    if modules:
        raise UsageError(
            f"commit {commit.short} has submodules, which are not delivered: {', '.join(modules)}",
            "put their files into the repository",
        )
    archive = _git(root, "archive", "--format=tar", commit.sha)
    with TemporaryDirectory(prefix="shipway-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            # Nothing leaves the folder; before Python 3.11.4 the filter may be missing.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            tar.extractall(folder)  # noqa: S202  (filtered, and the repository is our own)
        yield Path(folder)


def actor() -> str:
    """Who asks: the person behind the workflow run, or the one at this terminal."""
    for variable in ("SHIPWAY_ACTOR", "GITHUB_ACTOR"):
        if os.environ.get(variable):
            return os.environ[variable]
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
