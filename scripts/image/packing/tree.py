"""The files of a stage, without copying any: where each one is, and what identifies it.

Modes, owners and times are the image's, never the working copy's: two checkouts of a commit differ
in umask and times, and their images must not.
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

from scripts.image.packing import dockerignore

# Files of dependencies and folders: 2000-01-01. A time before 1980 is trouble for zip files.
FIXED_TIME = 946_684_800
_TEN_YEARS = 315_360_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or symbolic link in a stage.

    identity: what stands for the contents in cache keys: `sha256:…`, or where a RUN put it, or the
    target of a link. source: where the contents of a file are, None for the others. time: unix
    seconds.
    """

    kind: Literal["file", "folder", "link"]
    mode: int
    identity: str
    source: Path | None = None
    uid: int = 0
    gid: int = 0
    time: int = FIXED_TIME


FOLDER = Entry("folder", 0o755, "")

# From path, without leading slash, to what is there. A file's parents are in it, the root is not.
Tree = dict[str, Entry]


def context_tree(context: Path, dockerfile: Path) -> Tree:
    """The build context without what `.dockerignore` leaves out. Files have no identity yet."""
    ignore = dockerignore.read(context, dockerfile)
    tree: Tree = {}
    for path, found in dockerignore.walk(context, ignore):
        entry = scanned(found, identity="")
        if entry is not None:
            add(tree, path, entry)
    return tree


def scanned(found: os.DirEntry[str], identity: str) -> Entry | None:
    """The entry for something on this machine; None for sockets and devices."""
    if found.is_symlink():
        return Entry("link", 0o777, os.readlink(found.path))
    if found.is_dir(follow_symlinks=False):
        return FOLDER
    if not found.is_file(follow_symlinks=False):
        return None
    executable = found.stat(follow_symlinks=False).st_mode & 0o111
    return Entry("file", 0o755 if executable else 0o644, identity, Path(found.path))


def identified(entry: Entry) -> Entry:
    """The entry with its contents' digest as identity, and a time that depends on nothing else.

    A time derived from the contents, because web servers make ETags of time and size: with one time
    for all, an edit that keeps the size would look unchanged to every browser.
    """
    if entry.kind != "file" or entry.identity or entry.source is None:
        return entry
    digest = hashlib.sha256(entry.source.read_bytes()).hexdigest()
    time = FIXED_TIME + int(digest[:8], 16) % _TEN_YEARS
    return replace(entry, identity=f"sha256:{digest}", time=time)


def add(tree: Tree, path: str, entry: Entry) -> list[str]:
    """Put an entry in its place, with the folders above it; returns the paths that are new."""
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


def below(tree: Tree, folder: str) -> Iterator[tuple[str, Entry]]:
    """What is in a folder at any depth, as (path relative to it, entry); all of it for ""."""
    prefix = f"{folder}/" if folder else ""
    for path, entry in tree.items():
        if path.startswith(prefix):
            yield path[len(prefix) :], entry


def matching(tree: Tree, source: str) -> list[str]:
    """The paths that a COPY source stands for, sorted: wildcards as in Go's `filepath.Match`."""
    path = inside(source, "")
    if not re.search(r"[*?\[\\]", path):
        return [path] if path in tree or path == "" else []
    expression = re.compile(dockerignore.translate(path.replace("**", "*")))
    return sorted(name for name in tree if expression.fullmatch(name))


def followed(tree: Tree, path: str) -> str:
    """The path behind a link, or the path itself where that is none (or leads nowhere)."""
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
    """What a COPY of `sources`, paths in `origin`, to `place` puts there.

    A folder's contents are copied, not the folder. into: `place` is a folder that files keep their
    names in. mode: what all of them get, but not the folder they are copied into.
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
    """`path` as seen from `folder`, without leading slash; `..` never leads out of the root."""
    return posixpath.normpath(posixpath.join("/", folder, path)).strip("/")


def write_out(tree: Iterable[tuple[str, Entry]], root: Path) -> None:
    """Copy entries to real files below `root`, for a command that needs them there."""
    for path, entry in tree:
        place = root / path
        if entry.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if entry.kind == "link":
            place.symlink_to(entry.identity)
        elif entry.source is not None:
            shutil.copyfile(entry.source, place)
            place.chmod(entry.mode)
