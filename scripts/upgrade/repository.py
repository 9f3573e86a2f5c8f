"""The fork's git repository, for an upgrade to read and write.

Everything goes through git's plumbing and a scratch index, so that the branch, the index and the
work tree of the user do not change.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.errors import Failed, Refused, UsageError
from scripts.upgrade.plan import File

_BYTES = "surrogateescape"  # a file's name may be any bytes
_NONE = "0" * 40


class Repository:
    """One git repository.

    Args:
        root: the top folder of its work tree.
        scratch: a folder for temporary files.

    Raises:
        UsageError: `root` is not the top folder of a repository with a commit.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self._scratch = scratch
        self._index = {"GIT_INDEX_FILE": str(scratch / "index")}
        prefix = self._try("rev-parse", "--show-prefix")
        if prefix is None:
            raise UsageError(
                f"{root} is not a git repository", "git init && git add -A && git commit"
            )
        if prefix:
            raise UsageError(
                f"{root} is a folder of a larger repository: an upgrade needs Shipway at the top",
                f"run it in a separate repository; this one starts {prefix.count('/')} folders up",
            )
        self.head = self._try("rev-parse", "--verify", "--quiet", "HEAD^{commit}") or ""
        if not self.head:
            raise UsageError("there is no commit yet", "git add -A && git commit")

    def git(self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """Run git and return what it prints.

        Raises:
            Failed: it fails.
        """
        done = self._run(*words, stdin=stdin, env=env)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise Failed(f"git {words[0]} failed", evidence=lines[-5:])
        return done.stdout.decode("utf-8", _BYTES)

    def _try(self, *words: str) -> str | None:
        done = self._run(*words)
        return None if done.returncode else done.stdout.decode("utf-8", _BYTES).strip()

    def _run(
        self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        # The user's hooks are for the user's own commits and checkouts.
        settings = ("-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false")
        try:
            return subprocess.run(
                ["git", "-C", str(self.root), *settings, *words],
                input=stdin, capture_output=True, check=False, env={**os.environ, **(env or {})},
            )  # fmt: skip
        except FileNotFoundError:
            raise UsageError("git is not installed") from None

    # Reading

    def tree(self, commit: str) -> dict[str, File]:
        """Return the files of a commit by path."""
        files = {}
        for line in self.git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0"):
            if line:
                facts, _, path = line.partition("\t")
                mode, _kind, blob = facts.split()
                files[path] = File(mode, blob)
        return files

    def text(self, commit: str, path: str) -> str | None:
        """Return a file of a commit; None if there is none."""
        done = self._run("cat-file", "blob", f"{commit}:{path}")
        return None if done.returncode else done.stdout.decode("utf-8", "replace")

    def has_commit(self, sha: str) -> bool:
        """Return whether a commit is here."""
        return self._try("cat-file", "-e", f"{sha}^{{commit}}") is not None

    def merge_base(self, one: str, other: str) -> str | None:
        """Return the last commit that two commits have in common; None if there is none."""
        found = self._try("merge-base", one, other)
        return found.splitlines()[0] if found else None

    def same_tree(self, commit: str, among: str) -> str | None:
        """Return the commit in the history of `among` whose files are those of `commit`."""
        tree = self.git("rev-parse", f"{commit}^{{tree}}").strip()
        for line in self.git("log", "--format=%T %H", among).splitlines():
            if line.startswith(f"{tree} "):
                return line.split()[1]
        return None

    def roots(self) -> list[str]:
        """Return the first commits of the current branch."""
        return self.git("rev-list", "--max-parents=0", "HEAD").split()

    def published(self, *commits: str) -> set[tuple[str, str]]:
        """Return (path, blob id) of every file in the history of some commits."""
        found = set()
        raw = self.git(
            "log", "--format=", "--raw", "--no-abbrev", "--no-renames", "-m", "--root", "-z",
            *commits,
        )  # fmt: skip
        fields = iter(raw.split("\0"))
        for field in fields:
            if facts := field.strip("\n"):
                # Source: git-diff(1), "Raw output format": ":mode mode blob blob status", path.
                found.add((next(fields), facts.split()[3]))
        return found

    def moved(self, old: str, new: str) -> dict[str, str]:
        """Return old path -> new path of the files that moved between two commits."""
        words = ("diff-tree", "-r", "-z", "-M", "--name-status", "--diff-filter=R", old, new)
        fields = self.git(*words).split("\0")
        return dict(zip(fields[1::3], fields[2::3], strict=False))

    def has_branch(self, name: str) -> bool:
        """Return whether there is a branch of this name here."""
        return self._has(f"refs/heads/{name}")

    def has_branch_at_origin(self, name: str) -> bool:
        """Return whether there was a branch of this name at origin when it was last fetched."""
        return self._has(f"refs/remotes/origin/{name}")

    def _has(self, reference: str) -> bool:
        return self._try("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}") is not None

    def is_clean(self) -> bool:
        """Return whether the work tree is that of the last commit."""
        return not self.git("status", "--porcelain").strip()

    # Writing

    def merge(
        self, base: File | None, ours: File, theirs: File, labels: tuple[str, str, str]
    ) -> tuple[File, int] | None:
        """Merge a file three ways.

        Args:
            base: the file that both sides started from; None if there was none.
            ours: the fork's.
            theirs: the new version's.
            labels: what conflict markers call ours, base and theirs.

        Returns:
            The merged file and the number of conflicts marked in it; None for a binary file.
        """
        names = []
        for name, file in (("ours", ours), ("base", base), ("theirs", theirs)):
            content = self._run("cat-file", "blob", file.blob).stdout if file else b""
            (self._scratch / name).write_bytes(content)
            names.append(str(self._scratch / name))
        flags = [word for label in labels for word in ("-L", label)]
        done = self._run("merge-file", "-p", "--quiet", *flags, *names)
        # Source: git-merge-file(1): the number of conflicts, at most 127; more is an error.
        if done.returncode > 127:
            return None
        blob = self.git("hash-object", "-w", "--stdin", stdin=done.stdout).strip()
        mode = theirs.mode if base is None or ours.mode == base.mode else ours.mode
        return File(mode, blob), done.returncode

    def commit(self, changes: Mapping[str, File | None], message: str) -> str:
        """Write a commit on top of the current one; no branch points to it.

        Args:
            changes: path -> the file, or None to delete it.
            message: of the commit.

        Returns:
            Its full SHA.

        Raises:
            Failed: git fails, or does not allow a path.
        """
        # Deletions first: a new folder may have the name of a deleted file.
        lines = [f"0 {_NONE} 0\t{path}" for path, file in changes.items() if file is None]
        lines += [f"{f.mode} {f.blob} 0\t{path}" for path, f in changes.items() if f]
        self.git("read-tree", self.head, env=self._index)
        done = self._run(
            "update-index", "-z", "--index-info",
            stdin="".join(f"{line}\0" for line in lines).encode("utf-8", _BYTES),
            env=self._index,
        )  # fmt: skip
        # Git says "Ignoring path …" of one that could leave the work tree, and succeeds.
        said = done.stderr.decode(errors="replace").splitlines()
        if any(line.startswith("Ignoring path ") for line in said):
            raise Failed("there is a path that git does not allow", evidence=said[-5:])
        if done.returncode:
            raise Failed("git update-index failed", evidence=said[-5:])
        tree = self.git("write-tree", env=self._index).strip()
        words = ("commit-tree", tree, "-p", self.head, "-F", "-")
        return self.git(*words, stdin=message.encode()).strip()

    def check_name(self) -> None:
        """Check that git knows who makes a commit.

        Raises:
            UsageError: it does not.
        """
        for name in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
            if self._try("var", name) is None:
                raise UsageError(
                    "git does not know your name and e-mail address, which a commit needs",
                    'git config --global user.name "Your Name"'
                    " && git config --global user.email you@example.com",
                )

    def write(self, text: str) -> str:
        """Write a file's text into the repository; return its blob id."""
        return self.git("hash-object", "-w", "--stdin", stdin=text.encode("utf-8", _BYTES)).strip()

    def make_branch(self, name: str, commit: str) -> None:
        """Make a branch in one step.

        Raises:
            Refused: there is one of that name now.
        """
        done = self._run("update-ref", f"refs/heads/{name}", commit, _NONE)
        if done.returncode:
            raise Refused(
                f"the branch {name} was created in the meantime: nothing was changed",
                "run it again",
                evidence=done.stderr.decode(errors="replace").strip().splitlines(),
            )
