"""The files of a stage, without copies: the place and identity of each one.

Modes, owners and times do not come from the working copy: two checkouts of a commit differ in umask
and times, but their images must not.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from emulator.builds.packing import dockerignore

# The time of dependencies' files and of folders: 2000-01-01. Zip files allow none before 1980.
FIXED_TIME = 946_684_800
_TEN_YEARS = 315_360_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or symbolic link in a stage; or a path that a layer removes.

    Attributes:
        identity: the contents in cache keys: `sha256:…`, or where a RUN put it, or a link's target.
        source: the file with the contents; None for folders, links and empty files.
        time: Unix seconds.
    """

    kind: Literal["file", "folder", "link", "gone"]
    mode: int
    identity: str
    source: Path | None = None
    uid: int = 0
    gid: int = 0
    time: int = FIXED_TIME


FOLDER = Entry("folder", 0o755, "")
EMPTY = Entry("file", 0o644, f"sha256:{hashlib.sha256().hexdigest()}")
GONE = Entry("gone", 0, "")  # only in the changes of a layer

# Path without leading slash → entry. Contains each file's parents, but not the root.
Tree = dict[str, Entry]


def context_tree(context: Path, dockerfile: Path) -> Tree:
    """Read the build context without the files in `.dockerignore`. Files have no identity yet."""
    ignore = dockerignore.read(context, dockerfile)
    tree: Tree = {}
    for path, found in dockerignore.walk(context, ignore):
        entry = scanned(found, identity="")
        if entry is not None:
            add(tree, path, entry)
    return tree


def scanned(found: os.DirEntry[str], identity: str) -> Entry | None:
    """Make the entry for a file on this machine; None for sockets and devices."""
    if found.is_symlink():
        return Entry("link", 0o777, os.readlink(found.path))
    if found.is_dir(follow_symlinks=False):
        return FOLDER
    if not found.is_file(follow_symlinks=False):
        return None
    executable = found.stat(follow_symlinks=False).st_mode & 0o111
    return Entry("file", 0o755 if executable else 0o644, identity, Path(found.path))


def identified(entry: Entry) -> Entry:
    """Return the entry with its contents' digest as identity, and a time that depends on it only.

    A time derived from the contents, because web servers make ETags of time and size: with one time
    for all, an edit that keeps the size would look unchanged to every browser.
    """
    if entry.kind != "file" or entry.identity or entry.source is None:
        return entry
    digest = hashlib.sha256(entry.source.read_bytes()).hexdigest()
    time = FIXED_TIME + int(digest[:8], 16) % _TEN_YEARS
    return replace(entry, identity=f"sha256:{digest}", time=time)


def add(tree: Tree, path: str, entry: Entry) -> list[str]:
    """Add an entry and the folders above it; return the new paths."""
    new = []
    parts = path.split("/")
    for end in range(1, len(parts)):
        parent = "/".join(parts[:end])
        if parent not in tree or tree[parent].kind == "file":
            tree[parent] = FOLDER
            new.append(parent)
    if tree.get(path) != entry:
        tree[path] = entry
        new.append(path)
    return new


def remove(tree: Tree, path: str) -> None:
    """Remove an entry and all below it."""
    for name in [path, *(f"{path}/{inner}" for inner, _ in below(tree, path))]:
        tree.pop(name, None)


def difference(old: Tree, new: Tree) -> Tree:
    """Return the changes that make `new` of `old`: its new entries, and GONE for removed ones."""
    changed: Tree = {}
    for path in sorted(old.keys() - new.keys()):
        parent = new.get(posixpath.dirname(path))
        if "/" not in path or (parent is not None and parent.kind == "folder"):
            changed[path] = GONE
    changed |= {path: entry for path, entry in new.items() if old.get(path) != entry}
    return changed


def below(tree: Tree, folder: str) -> Iterator[tuple[str, Entry]]:
    """Yield a folder's contents at any depth as (path relative to it, entry); "" is the root."""
    prefix = f"{folder}/" if folder else ""
    for path, entry in tree.items():
        if path.startswith(prefix):
            yield path[len(prefix) :], entry


def matching(tree: Tree, source: str) -> list[str]:
    """Return the sorted paths that a COPY source matches, as Go's `filepath.Match` does."""
    path = inside(source, "")
    if not re.search(r"[*?\[\\]", path):
        return [path] if path in tree or path == "" else []
    try:
        expression = re.compile(dockerignore.translate(re.sub(r"\*+", "*", path)))
    except re.error:  # such as [z-a], which matches nothing in Go
        return []
    return sorted(name for name in tree if expression.fullmatch(name))


def followed(tree: Tree, path: str) -> str:
    """Follow a link; return the path itself if it is not a link, or a broken one."""
    for _ in range(8):
        entry = tree.get(path)
        if entry is None or entry.kind != "link":
            break
        target = inside(entry.identity, posixpath.dirname(path))
        if target not in tree:
            break
        path = target
    return path


def placed(
    origin: Tree,
    sources: Iterable[str],
    place: str,
    into: bool,
    owner: tuple[int, int],
    mode: int | None,
) -> Tree:
    """Return the entries that a COPY makes. Of a folder, it copies the contents.

    Args:
        origin: the files to copy from.
        sources: paths in it.
        place: the destination.
        into: whether the destination is a folder, in which files keep their names.
        owner: uid and gid.
        mode: of all entries, except the folder that they are copied into.
    """
    copied: Tree = {}
    for source in sources:
        real = followed(origin, source)
        entry = origin.get(real, FOLDER)
        if entry.kind == "folder":
            if place:
                copied[place] = _owned(FOLDER, owner, None)
            for name, inner in below(origin, real):
                path = f"{place}/{name}" if place else name
                copied[path] = _owned(identified(inner), owner, mode)
            continue
        name = posixpath.basename(source)
        path = (f"{place}/{name}" if place else name) if into else place
        copied[path] = _owned(identified(entry), owner, mode)
    return copied


def _owned(entry: Entry, owner: tuple[int, int], mode: int | None) -> Entry:
    entry = replace(entry, uid=owner[0], gid=owner[1])
    return entry if mode is None or entry.kind == "link" else replace(entry, mode=mode)


def inside(path: str, folder: str) -> str:
    """Resolve `path` in `folder`, without leading slash; `..` never leaves the root."""
    return posixpath.normpath(posixpath.join("/", folder, path)).strip("/")


def write_out(tree: Iterable[tuple[str, Entry]], root: Path) -> None:
    """Copy entries to real files below `root`, for a command that needs them."""
    for path, entry in tree:
        place = root / path
        if entry.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if entry.kind == "link":
            place.symlink_to(entry.identity)
        elif entry.source is None:
            place.touch()
        else:
            shutil.copyfile(entry.source, place)
            place.chmod(entry.mode)
