"""Read from git: commits, their files, the remote, and uncommitted changes."""

from __future__ import annotations

import getpass
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from scripts.errors import UsageError

# `git cat-file --batch`: a line about the object, its headers, an empty line, its message.
_COMMIT = re.compile(
    rb"(?P<sha>[0-9a-f]+) commit \d+\n(?:.+\n)*?committer .*> (?P<time>-?\d+) .*\n(?:.+\n)*"
    rb"\s*(?P<subject>(?:.+\n?)*)"
)


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit: full SHA, the time it was made (Unix seconds), and its first line."""

    sha: str
    time: int
    subject: str

    @property
    def short(self) -> str:
        """The first seven digits of the SHA."""
        return self.sha[:7]


def _run(root: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git, with `given` as its input.

    Raises:
        UsageError: git is not installed, or `root` is not a repository that git reads.
    """
    return _begin(root, *arguments)(given)


def _begin(root: Path, *arguments: str) -> Callable[[bytes], subprocess.CompletedProcess[bytes]]:
    """Start git; return what gives it its input and waits for its end. Raises as `_run`."""
    # git's messages are matched below: in English, whatever the user's language is.
    env = {**os.environ, "LC_ALL": "C"}
    command = ["git", "-C", str(root), *arguments]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    except FileNotFoundError:
        raise UsageError("git is not installed") from None

    def end(given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        with process:
            try:
                stdout, stderr = process.communicate(given)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
        return _readable(root, done)

    return end


def _readable(
    root: Path, done: subprocess.CompletedProcess[bytes]
) -> subprocess.CompletedProcess[bytes]:
    """Return what git did; raises UsageError if `root` is not a repository that git reads."""
    if done.returncode and b"not a git repository" in done.stderr:
        raise UsageError(
            f"{root} is not a git repository: Shipway delivers commits",
            "git init && git add -A && git commit, or clone the repository",
        )
    if done.returncode and b"dubious ownership" in done.stderr:
        raise UsageError(
            f"git does not trust {root}: it belongs to another user",
            f"git config --global --add safe.directory {root}",
        )
    return done


def _git(root: Path, *arguments: str) -> bytes:
    """Return what a git command prints.

    Raises:
        UsageError: the command fails.
    """
    return _output(_run(root, *arguments), arguments[0])


def _output(done: subprocess.CompletedProcess[bytes], command: str) -> bytes:
    """Return what git printed; raises UsageError if it failed."""
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        first = next((line for line in lines if line.startswith("fatal:")), lines[-1])
        raise UsageError(f"git {command}: {first}")
    return done.stdout


def _sha(root: Path, reference: str) -> str | None:
    """Return the full SHA of the commit that a reference names, or None."""
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    done = _run(root, *words)
    # A range prints its commits too, although it names none.
    return None if done.returncode else done.stdout.decode().strip()


def commit(root: Path, reference: str = "HEAD", *, option: str = "--commit") -> Commit:
    """Read the commit that a reference names.

    Args:
        root: the repository.
        reference: anything that git takes for a commit.
        option: the option that gave the reference, as errors name it.

    Raises:
        UsageError: there is no repository, or no such commit.
    """
    # One process: `git log` would take a range of commits for one.
    asked = f"{reference}^{{commit}}".encode(errors="surrogateescape")
    found = b"" if b"\n" in asked else _run(root, "cat-file", "--batch", given=asked + b"\n").stdout
    match = _COMMIT.match(found)
    if match is None and reference == "HEAD":
        raise UsageError("the repository has no commit yet", "git add -A && git commit")
    if match is None:
        raise UsageError(
            f"{option} {reference}: no such commit here", "git fetch gets newer commits"
        )
    subject = " ".join(match["subject"].decode(errors="replace").splitlines())
    return Commit(sha=match["sha"].decode(), time=int(match["time"]), subject=subject)


def is_newer(root: Path, commit: str, than: str) -> bool | None:
    """Return whether `commit` is a descendant of `than`; None if this clone lacks a commit.

    Args:
        root: the repository.
        commit: what a service reports about itself, so possibly not a commit at all.
        than: the full SHA of an existing commit.
    """
    if commit == than or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        return False
    done = subprocess.run(
        ["git", "-C", str(root), "merge-base", "--is-ancestor", than, commit],
        capture_output=True, check=False,
    )  # fmt: skip
    # Source: git-merge-base(1): 0 it is, 1 it is not, anything else is an error.
    return {0: True, 1: False}.get(done.returncode)


def distance(root: Path, commit: str, other: str) -> int | None:
    """Return how many commits `commit` lacks to become `other`; None if it does not come before.

    None also if this clone lacks one of them.
    """
    if not is_newer(root, other, commit):
        return None
    return int(_git(root, "rev-list", "--count", f"{commit}..{other}").decode())


def merge_base(root: Path, one: str, other: str) -> str | None:
    """Return the last common commit of two references; None if this clone has none."""
    done = _run(root, "merge-base", one, other)
    return None if done.returncode else done.stdout.decode().split()[0]


def parent(root: Path, commit: str) -> str | None:
    """Return a commit's first parent; None if it has none, or this clone lacks it."""
    return _sha(root, f"{commit}^1")


def ancestors(root: Path, commit: Commit, most: int) -> list[str]:
    """Return the full SHAs of the commits before a commit on its branch, newest first.

    Args:
        root: the repository.
        commit: the commit to start from; not part of the list.
        most: how many to return; a shallow clone may have fewer.
    """
    log = _git(root, "rev-list", "--first-parent", f"--max-count={most + 1}", commit.sha)
    return log.decode().split()[1:]


def known(root: Path, reference: str) -> str | None:
    """Return the full SHA of the commit that a reference names; None if this clone lacks it."""
    return _sha(root, reference)


def changed(root: Path, since: str, commit: str) -> list[str]:
    """Return the files below `root` that differ between two commits, deleted ones included.

    A file that was moved counts at both places.
    """
    words = ("diff", "--name-only", "-z", "--no-renames", "--relative", since, commit, "--", ".")
    return [name for name in _git(root, *words).decode(errors="replace").split("\0") if name]


def uncommitted(root: Path) -> int:
    """Count the files below `root` that differ from HEAD or are not in git."""
    return counting_uncommitted(root)()


def counting_uncommitted(root: Path) -> Callable[[], int]:
    """Start what `uncommitted` does, which reads every file; return what waits for its result."""
    end = _begin(root, "status", "--porcelain", "--", ".")
    return lambda: len(_output(end(b""), "status").splitlines())


def listed(root: Path, folder: str) -> list[str]:
    """Return the files below a folder that a commit of everything would have.

    Returns:
        Paths relative to the folder, sorted; none if it is not in a repository.
    """
    words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
    try:
        found = _git(root / folder, *words).decode(errors="replace")
    except UsageError:
        return []
    # Git lists a deleted file as long as the deletion is not committed.
    return sorted({n for n in found.split("\0") if n and os.path.lexists(root / folder / n)})


def holds(root: Path, file: str) -> bool:
    """Return whether git has a file, committed or to be."""
    try:
        return bool(_git(root, "ls-files", "--", file))
    except UsageError:
        return False  # not a repository


def has_origin(root: Path) -> bool:
    """Return whether the repository has a remote called origin, at GitHub or elsewhere."""
    return bool(_origin_url(root))


def _origin_url(root: Path) -> str:
    """Return the address of origin as git has it; "" without one, or without a repository."""
    try:
        return _git(root, "remote", "get-url", "origin").decode().strip()
    except UsageError:
        return ""


def origin(root: Path) -> str:
    """Return the repository's web address; "" if it has none."""
    url = _origin_url(root)
    if url.startswith("git@"):
        url = "https://" + url.removeprefix("git@").replace(":", "/", 1)
    # A remote's address may carry a token: an image label must not (I9).
    scheme, _, rest = url.partition("://")
    if scheme not in ("https", "http", "ssh"):
        return ""  # a folder of this machine
    return f"https://{rest.rpartition('@')[2]}".removesuffix(".git")


def github_name(root: Path) -> str | None:
    """Return the repository's OWNER/NAME at GitHub; None if its origin is elsewhere."""
    match = re.fullmatch(r"https://github\.com/([^/]+/[^/]+)", origin(root))
    return match[1] if match else None


@contextmanager
def checkout(
    root: Path, commit: Commit, folders: Callable[[Path], list[str] | None]
) -> Iterator[Path]:
    """Give a scratch folder with the commit's files, removed afterwards.

    Shipway delivers committed files only, configuration included. A large repository takes long
    to write out, so folders that no one reads are left out.

    Args:
        root: the repository.
        commit: the commit.
        folders: for a folder with pipelines/ alone, returns the folders that are needed besides;
            None for all files.

    Raises:
        UsageError: the commit has submodules, or a link that leads outside.
    """
    listing = _begin(root, "ls-tree", "-r", commit.sha)
    # Nothing, if there is no such folder.
    pipelines = _run(root, *_archive(commit, "pipelines")).stdout
    listed = _output(listing(b""), "ls-tree").decode(errors="replace")
    files = [line.partition("\t") for line in listed.splitlines()]
    modules = [path for kind, _, path in files if kind.startswith("160000 ")]
    if modules:
        raise UsageError(
            f"commit {commit.short} has submodules, which Shipway does not deliver:"
            f" {', '.join(modules)}",
            "put their files into the repository",
        )
    # A link may lead to any of the files.
    has_links = any(kind.startswith("120000 ") for kind, _, _ in files)
    existing = {path.partition("/")[0] for _, _, path in files}
    with TemporaryDirectory(prefix="shipway-") as folder:
        needed = None
        if not has_links and "pipelines" in existing:
            _extract(commit, pipelines, folder)
            needed = folders(Path(folder))
        if needed is None or not existing.issuperset(needed):
            _extract(commit, _git(root, *_archive(commit)), folder)
        elif needed:
            _extract(commit, _git(root, *_archive(commit, *needed)), folder)
        yield Path(folder)


def _archive(commit: Commit, *paths: str) -> list[str]:
    """Return the git command that archives a commit's files: those of some paths, or all."""
    return ["archive", "--format=tar", commit.sha, "--", *paths]


def _extract(commit: Commit, archive: bytes, folder: str) -> None:
    """Write an archive of a commit's files into a folder."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        # Nothing leaves the folder; before Python 3.11.4 the filter may be missing.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        try:
            tar.extractall(folder)  # noqa: S202  (filtered, and the repository is our own)
        except tarfile.TarError as error:
            raise UsageError(
                f"commit {commit.short} cannot be checked out: {error}",
                "commit the files themselves, not a link that leads outside the repository",
            ) from None


def actor() -> str:
    """Return who acts: the user behind the workflow run, or the user at this terminal."""
    for variable in ("SHIPWAY_ACTOR", "GITHUB_ACTOR"):
        if os.environ.get(variable):
            return os.environ[variable]
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
