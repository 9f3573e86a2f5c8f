"""Layers: a tar file of a stage's entries, the same bytes every time, kept in the cache.

Source: OCI image specification, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import posixpath
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import IO, Any

from emulator.builds.packing.tree import EMPTY, Entry, Tree

# Part of every cache key: change it when the same input should give different bytes.
FORMAT = 4
_LEVEL = 4
_DAY = 86_400  # seconds


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes:
        digest: the compressed file's.
        diff_id: the digest of the tar file in it.
        size: of the compressed file, in bytes.
        path: the compressed file.
        reused: whether it came from the cache.
    """

    digest: str
    diff_id: str
    size: int
    path: Path
    reused: bool = False


def key_of(*parts: object) -> str:
    """Make a cache key of 64 hex digits from `parts` (any JSON values)."""
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()


def listed(tree: Tree) -> list[object]:
    """List what identifies a tree's entries, for a key."""
    return [
        [path, e.kind, e.mode, e.identity, e.uid, e.gid, e.time] for path, e in sorted(tree.items())
    ]


def layer(entries: Tree, cache: Path) -> Layer:
    """Return the layer of `entries`, from the cache if it is there."""
    key = key_of("layer", listed(entries))
    record = cache / "layers" / f"{key}.json"
    if found := _known(record, cache):
        return found
    with turn(cache, key):
        return _known(record, cache) or _made(entries, record, cache)


def _known(record: Path, cache: Path) -> Layer | None:
    try:
        known = json.loads(record.read_bytes())
        path = _blob(cache, known["digest"])
        if path.stat().st_size == known["size"]:
            return Layer(**known, path=path, reused=True)
    except (FileNotFoundError, ValueError):
        pass  # missing or lost
    return None


def _made(entries: Tree, record: Path, cache: Path) -> Layer:
    record.parent.mkdir(parents=True, exist_ok=True)
    with scratch(cache) as folder:
        made = _write(entries, folder / "layer")
        # The blob before the record that names it: a kill in between leaves an unused blob.
        path = _blob(cache, made.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.path.replace(path)
        known = {name: value for name, value in asdict(made).items() if name[0] in "ds"}
        (folder / "record").write_text(json.dumps(known))
        (folder / "record").replace(record)
    return Layer(made.digest, made.diff_id, made.size, path)


def _blob(cache: Path, digest: str) -> Path:
    return cache / "blobs" / digest.removeprefix("sha256:")


Progress = Callable[[str], None]
Ending = Callable[[Callable[[], None]], AbstractContextManager[object]]
"""A context in which a function is called if the build is to end."""


@contextmanager
def turn(cache: Path, key: str, ending: Ending = nullcontext) -> Iterator[None]:
    """Wait while another build makes the same thing, so that its result can be used.

    A build that is to end waits no longer. Without a turn, the work is only done twice.
    """
    path = cache / "tmp" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    ends = Event()
    with path.open("wb") as lock:
        with ending(ends.set):
            while not ends.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    ends.wait(0.05)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def scratch(cache: Path) -> Any:
    """Make a temporary folder in the cache, on the same disk as the results.

    Also removes what killed builds left behind more than a day ago.
    """
    folder = cache / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        try:
            if time.time() - old.stat().st_mtime > _DAY:
                old.unlink() if old.is_file() else shutil.rmtree(old, ignore_errors=True)
        except FileNotFoundError:
            continue  # its build has just removed it
    mine = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _write(entries: Tree, path: Path) -> Layer:
    with path.open("wb") as file:
        compressed = _Hashing(file)
        # No name and no time in the header: the same input gives the same file. Python's own level,
        # 9, takes six times as long and makes a file 4 % smaller.
        with gzip.GzipFile("", "wb", _LEVEL, compressed, mtime=0) as zipped:
            plain = _Hashing(zipped)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for name, entry in sorted(entries.items()):
                    _add(tar, name, entry)
        file.flush()
        os.fsync(file.fileno())
    return Layer(compressed.digest, plain.digest, compressed.size, path)


def _add(tar: tarfile.TarFile, name: str, entry: Entry) -> None:
    if entry.kind == "gone":  # a whiteout, which is an empty file
        folder, name = posixpath.split(name)
        name, entry = posixpath.join(folder, f".wh.{name}"), EMPTY
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = entry.mode, entry.time
    info.uid, info.gid = entry.uid, entry.gid
    if entry.kind == "file":
        contents = entry.source.read_bytes() if entry.source else b""
        info.size = len(contents)
        tar.addfile(info, io.BytesIO(contents))
        return
    info.type = tarfile.DIRTYPE if entry.kind == "folder" else tarfile.SYMTYPE
    info.linkname = entry.identity if entry.kind == "link" else ""
    tar.addfile(info)


class _Hashing(io.RawIOBase):
    """A file that passes bytes on, and counts and hashes them."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, chunk: Any) -> int:
        self._target.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)
        return len(chunk)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"
