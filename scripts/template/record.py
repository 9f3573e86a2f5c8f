"""The file .shipway.toml: the version of Shipway that a fork was made from, and its source.

`ship init` and `ship upgrade` write it. The template's own repository has none.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from scripts.errors import UsageError
from scripts.template import version
from scripts.template.owners import Owners, current

FILE = ".shipway.toml"
_HEADER = "# Shipway in this repository (docs/upgrade.md). ship init and upgrade write this file.\n"
_BYTES = "surrogateescape"  # a file's name may be any bytes
_COMMENTS = {
    "version": "Its version.",
    "files": "A digest of Shipway's code in that version. ./ship test compares the code with it.",
    "source": "The repository that ./ship upgrade fetches new versions from.",
    "commit": "The commit of the version in that repository.",
    "keep": "Shipway's files that this repository changed. An upgrade merges them.",
    "self_hosted_runners": "Jobs on self-hosted runners get an identity, too (docs/security.md).",
}


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of .shipway.toml.

    Attributes:
        version: the version, such as "0.2.0".
        files: the digest of Shipway's code in that version, see `fingerprint`; "" if unknown.
        source: the URL of the template's repository; "" while it is unknown.
        commit: the full SHA of the version in that repository; "" before the first upgrade.
        keep: Shipway's files that the fork changed and wants to keep.
        self_hosted_runners: whether jobs on self-hosted runners get an identity (docs/security.md).
    """

    version: str
    files: str = ""
    source: str = ""
    commit: str = ""
    keep: list[str] = []
    self_hosted_runners: bool = False


def parse(text: str) -> Record:
    """Read the text of a .shipway.toml.

    Raises:
        UsageError: it is not valid.
    """
    try:
        return msgspec.toml.decode(text, type=Record)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UsageError(
            f"{FILE}: {error}", f"fix the line, or take the last good one: git log -p {FILE}"
        ) from None


def render(record: Record) -> str:
    """Return the text of a .shipway.toml."""
    lines = [_HEADER]
    for name, value in msgspec.structs.asdict(record).items():
        if value:
            # A JSON string, boolean or list of strings is a TOML one.
            lines.append(
                f"\n# {_COMMENTS[name]}\n{name} = {json.dumps(value, ensure_ascii=False)}\n"
            )
    return "".join(lines)


def read(root: Path) -> Record | None:
    """Return a repository's record; None if there is none."""
    try:
        return parse((root / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def start(root: Path) -> None:
    """Write the first record of a repository; keep an existing one."""
    if not (root / FILE).exists():
        files = fingerprint(_index(root), current())
        text = render(Record(version=version.current(), files=files))
        (root / FILE).write_text(text, encoding="utf-8")


def fingerprint(files: Iterable[tuple[str, str, str]], owners: Owners) -> str:
    """Return one digest of Shipway's code: its files without docs/.

    Args:
        files: mode, blob id and path of each file in the repository.
        owners: the owners of the files.
    """
    lines = sorted(
        f"{path}\0{mode} {blob}\n" for mode, blob, path in files if _is_code(path, owners)
    )
    return "sha256:" + hashlib.sha256("".join(lines).encode(errors=_BYTES)).hexdigest()


def is_unchanged(root: Path, record: Record) -> bool:
    """Return whether Shipway's code in the work tree is that of the recorded version."""
    owners = current()
    options = ("--modified", "--deleted", "--others", "--exclude-standard")
    edited = _ls_files(root, *options)
    if any(_is_code(path, owners) for path in edited):
        return False
    return fingerprint(_index(root), owners) == record.files


def _is_code(path: str, owners: Owners) -> bool:
    # A fork may add pages to docs/: they cannot break anything.
    return owners.of(path) == "shipway" and not path.startswith("docs/")


def _index(root: Path) -> list[tuple[str, str, str]]:
    """Mode, blob id and path of each tracked file; none outside a git repository."""
    files = []
    for line in _ls_files(root, "--stage"):
        facts, _, path = line.partition("\t")
        mode, blob, _stage = facts.split()
        files.append((mode, blob, path))
    return files


def _ls_files(root: Path, *options: str) -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", *options],
        capture_output=True, encoding="utf-8", errors=_BYTES, check=False,
    ).stdout  # fmt: skip
    return [name for name in listed.split("\0") if name]
