"""A fork: its version of Shipway, the source of that version, and the newer ones."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from scripts.errors import Failed, UsageError
from scripts.setup import github
from scripts.template import record
from scripts.template.record import Record
from scripts.upgrade import changelog
from scripts.upgrade.repository import Repository

_VERSION = "scripts/template/VERSION"


class Base(msgspec.Struct, frozen=True):
    """The commit of Shipway that the fork's files are based on, and how that is known."""

    commit: str
    how: str


class Fork:
    """A fork of Shipway.

    Attributes:
        repository: its git repository.
        record: its record at the last commit; None before the first one.
        version: the version that it has.
        url: Shipway's repository.
        versions: version -> commit of all versions there, the newest last.
    """

    def __init__(self, repository: Repository, recorded: Record | None, url: str) -> None:
        self.repository = repository
        self.record = recorded
        self.url = url
        self.version = recorded.version if recorded else self._version()
        self.versions = _versions(repository, url)

    @classmethod
    def read(cls, root: Path, scratch: Path, url: str | None) -> Fork:
        """Read a fork and the list of Shipway's versions.

        Args:
            root: the top folder of its work tree.
            scratch: a folder for temporary files.
            url: Shipway's repository, where the user names it.

        Raises:
            UsageError: Shipway's repository is not known, or has no versions.
        """
        repository = Repository(root, scratch)
        text = repository.text("HEAD", record.FILE)
        recorded = record.parse(text) if text else None
        found = _checked(url, root) if url else recorded.source if recorded else ""
        found = found or github.template(root)
        if not found:
            raise UsageError(
                "the repository that Shipway comes from is not known",
                "./ship upgrade --from https://github.com/OWNER/REPOSITORY.git"
                " (once; it is recorded)",
            )
        return cls(repository, recorded, found)

    def _version(self) -> str:
        """Return the version that the files name. Version 0.1.0 named it in pyproject.toml."""
        if text := self.repository.text("HEAD", _VERSION):
            return text.strip()
        try:
            document = tomllib.loads(self.repository.text("HEAD", "pyproject.toml") or "")
        except tomllib.TOMLDecodeError:
            return ""
        project = document.get("project", {})
        return str(project.get("version", "")) if project.get("name") == "shipway" else ""

    def newer(self, wanted: str | None) -> str | None:
        """Return the version to upgrade to; None if the fork has it.

        Args:
            wanted: the version that the user asked for; None for the newest.

        Raises:
            UsageError: there is no such version, or it is older than the fork's.
        """
        new = list(self.versions)[-1] if wanted is None else wanted.removeprefix("v")
        if new not in self.versions:
            raise UsageError(
                f"--to {wanted}: no such version in {self.url}",
                f"versions: {', '.join(list(self.versions)[-5:])}",
            )
        have, want = changelog.number(self.version), changelog.number(new)
        assert want
        if have and want < have and wanted:
            raise UsageError(f"--to {wanted}: this repository has {self.version}, which is newer")
        return None if have and want <= have else new

    def fetch(self, new: str) -> None:
        """Fetch a version and the fork's own, with their history; no branch or tag is made here."""
        wanted = [version for version in (new, self.version) if version in self.versions]
        names = [f"refs/tags/v{version}" for version in wanted]
        self.repository.git(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc",
            "--no-recurse-submodules", "--", self.url, *names,
        )  # fmt: skip

    def changes(self, new: str) -> str:
        """Return the changelog's sections of the versions up to a fetched one."""
        text = self.repository.text(self.versions[new], changelog.PATH) or ""
        return changelog.between(text, self.version, new)

    def base(self, target: str) -> Base:
        """Find the commit of Shipway that the fork's files are based on.

        Args:
            target: the commit of the new version.

        Raises:
            UsageError: it cannot be found.
        """
        repository = self.repository
        if self.record and self.record.commit and repository.has_commit(self.record.commit):
            return Base(self.record.commit, "upgraded before")
        if common := repository.merge_base("HEAD", target):
            return Base(common, "a fork with Shipway's history")
        for root in repository.roots():
            if same := repository.same_tree(root, target):
                return Base(same, "a copy of the template")
        if self.version in self.versions:
            return Base(self.versions[self.version], "a copy, by its version number")
        raise UsageError(
            "cannot tell which version of Shipway this repository was made from",
            f'add it to {record.FILE}: version = "0.1.0"',
        )


def _checked(url: str, root: Path) -> str:
    """Return the URL to record.

    Raises:
        UsageError: it is not one, or it contains a password (I9).
    """
    parts = urlsplit(url)
    if not url.strip() or url.startswith("-"):
        raise UsageError(f"--from '{url}' is not the URL of a git repository")
    if parts.password or (parts.username and parts.scheme in ("http", "https")):
        raise UsageError(
            "--from: the URL contains a user name or a password, and it would be recorded in git",
            "leave them out; git asks its credential helper (gh auth setup-git)",
        )
    return str(Path(url).resolve()) if Path(url).is_dir() else url


def _versions(repository: Repository, url: str) -> dict[str, str]:
    """Return version -> commit, the newest version last.

    Raises:
        Failed: the repository cannot be read.
        UsageError: there is no version at the URL.
    """
    try:
        tags = repository.git("ls-remote", "--tags", "--", url)
    except Failed as error:
        raise Failed(
            f"cannot read {url}",
            f"check the URL and your access: git ls-remote {shlex.quote(url)}",
            evidence=error.evidence,
        ) from None
    found = {}
    for line in tags.splitlines():
        sha, _, name = line.partition("\trefs/tags/v")
        # An annotated tag is an object of its own; the line with ^{} after it names the commit.
        if number := changelog.number(name.removesuffix("^{}")):
            found[number] = sha
    if not found:
        raise UsageError(
            f"{url} has no version: no tag such as v1.2.3", "name Shipway's repository: --from URL"
        )
    return {".".join(map(str, number)): found[number] for number in sorted(found)}
