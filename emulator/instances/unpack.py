"""Unpacks an image's layers to a folder.

Source: https://github.com/opencontainers/image-spec/blob/main/layer.md (changesets, whiteouts).
Layers are not trusted: nothing is written outside the folder, and what they may cost is limited.
Every symbolic link is rewritten so that it stays inside, and a chain of links does, too.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_GZIP = b"\x1f\x8b"
_PIECE = 64 * 1024  # bytes
# Bytes of the headers of one file: its long name, its extended attributes.
_HEADERS = 256 * 1024
# Extended headers that apply to all files after them.
_GLOBAL_HEADERS = 100
# Folders in each other. Python removes deeper ones only by recursion that fails.
_DEEPEST = 200
# Bytes in the name of a file, as on Linux; and seconds for all layers.
_LONGEST_NAME, _PATIENCE = 4096, 600.0
# The times that every file system keeps, in seconds since the epoch.
_TIMES = range(2**32)
# Python before 3.11.10 takes quadratic time for a long number in a header (CVE-2024-6232).
_LONG_NUMBER = re.compile(rb"[0-9]{256}")


class Limits(NamedTuple):
    """How much an image may unpack to: bytes of its layers, uncompressed, and their files."""

    size: int = 4 * 1024**3
    files: int = 200_000


class BadLayer(Exception):
    """A layer with an entry that cannot be unpacked; the text says why."""


def unpack(
    layers: Iterable[Path], root: Path, limits: Limits, left: Limits | None = None
) -> Limits:
    """Write the files of layers to a folder, without owners and device nodes.

    Args:
        layers: Tar files, plain or compressed with gzip, lowest first.
        root: The folder: empty, or with the files of the layers below.
        limits: What all layers together may unpack to.
        left: What the layers below have left of that.

    Returns:
        What is left of the limits.

    Raises:
        BadLayer: An entry points outside the image, or there is more than the limits allow.
        Exception: A layer is malformed, or a file cannot be written. Python's tarfile, gzip and
            zlib raise many types.
    """
    budget = _Budget(limits, left or limits)
    root = root.resolve()
    for path in layers:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            source = _Source(gzip.GzipFile(fileobj=file) if compressed else file, budget)
            with tarfile.open(fileobj=source, mode="r:") as layer:  # type: ignore[call-overload]  # typeshed asks for methods that "r:" does not call
                _Layer(root, budget).apply(layer, source)
    return budget.left


class _Budget:
    """What is left of the limits."""

    def __init__(self, limits: Limits, left: Limits) -> None:
        self._limits = limits
        self._size, self._files = left
        self._deadline = time.monotonic() + _PATIENCE

    @property
    def left(self) -> Limits:
        return Limits(self._size, self._files)

    def take_bytes(self, count: int) -> None:
        self._size -= count
        if self._size < 0:
            raise BadLayer(
                f"its files are larger than {self._limits.size} bytes. "
                "To allow more: ./ship up --max-image-bytes"
            )

    def take_file(self) -> None:
        if time.monotonic() > self._deadline:
            raise BadLayer(f"it takes longer than {_PATIENCE:.0f} s")
        self._files -= 1
        if self._files < 0:
            raise BadLayer(
                f"it has more than {self._limits.files} files. "
                "To allow more: ./ship up --max-image-files"
            )


class _Source:
    """The uncompressed bytes of a layer, for tarfile, which reads all headers of a file at once.

    Going back is an error: a size in a header that is negative makes tarfile do so for ever
    (CVE-2025-8194).
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, budget: _Budget) -> None:
        self._file = file
        self._budget = budget
        self._at = 0
        self._headers = _HEADERS
        self.in_headers = True

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        if to < self._at:
            raise BadLayer("a size in it is negative")
        while self._at < to and self._read(min(_PIECE, to - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        if not self.in_headers:
            return self._read(size)
        if not 0 <= size <= self._headers:
            raise BadLayer("the headers of a file are too large")
        self._headers -= size
        found = self._read(size)
        if _LONG_NUMBER.search(found):
            raise BadLayer("a number in the headers of a file is too long")
        return found

    def next_file(self) -> None:
        """Allow the headers of one more file."""
        self._headers = _HEADERS

    def _read(self, size: int) -> bytes:
        found = self._file.read(size)
        self._at += len(found)
        self._budget.take_bytes(len(found))
        return found


class _Layer:
    def __init__(self, root: Path, budget: _Budget) -> None:
        self.root = root
        self.budget = budget
        self.written: set[Path] = set()
        self.folders: set[Path] = set()
        self.cleared: set[Path] = set()

    def apply(self, layer: tarfile.TarFile, source: _Source) -> None:
        while (member := layer.next()) is not None:
            # Otherwise tarfile keeps the headers of every file.
            layer.members.clear()  # type: ignore[attr-defined]  # typeshed leaves it out
            if len(layer.pax_headers) > _GLOBAL_HEADERS:
                raise BadLayer("it has too many global headers")
            if member.size < 0:
                raise BadLayer("a size in it is negative")
            self.budget.take_file()
            source.in_headers = False
            self._apply(layer, member)
            source.in_headers = True
            source.next_file()

    def _apply(self, layer: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            return
        parent = self._folder(parts[:-1])
        name = parts[-1]
        if name == _OPAQUE:
            self._clear(parent)
        elif name.startswith(_WHITEOUT):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise BadLayer(f"'{member.name}' hides no file")
            self._remove(parent / hidden)
        else:
            self._write(layer, member, parent / name)

    def _folder(self, parts: tuple[str, ...]) -> Path:
        """Return the real folder of a path in the image; creates it if it does not exist."""
        folder = self.root.joinpath(*parts)
        if folder in self.folders:
            return folder
        real = Path(os.path.realpath(folder))
        if real != self.root and self.root not in real.parents:
            raise BadLayer(f"'{'/'.join(parts)}' points outside the image")
        if len(real.parts) - len(self.root.parts) > _DEEPEST:
            raise BadLayer(f"it has more than {_DEEPEST} folders in each other")
        for missing in reversed([path for path in (real, *real.parents) if not path.exists()]):
            self.budget.take_file()
            missing.mkdir()
        if real == folder:
            self.folders.add(folder)
        return real

    def _write(self, layer: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        if member.isdir():
            if target.is_symlink() or not target.is_dir():
                self._remove(target)
                target.mkdir()
            target.chmod(member.mode & 0o777 | 0o700)
        elif member.isreg():
            self._remove(target)
            self._copy(layer, member, target)
        elif member.issym():
            self._remove(target)
            target.symlink_to(self._inside(member.linkname, target.parent))
        elif member.islnk():
            self._link(member, target)
        self.written.add(target)

    def _copy(self, layer: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        if member.issparse():
            # Its holes are not in the layer. They are written all the same.
            self.budget.take_bytes(member.size)
        source = layer.extractfile(member)
        assert source is not None
        with target.open("xb") as file:
            shutil.copyfileobj(source, file, _PIECE)
        target.chmod(member.mode & 0o777 | 0o600)
        seconds = int(member.mtime) if 0 <= member.mtime < _TIMES.stop else 0
        os.utime(target, (seconds, seconds))

    def _link(self, member: tarfile.TarInfo, target: Path) -> None:
        parts = _parts(member.linkname)
        if not parts:
            raise BadLayer(f"the hard link '{member.name}' names no file")
        source = self._folder(parts[:-1]) / parts[-1]
        if source == target:
            return
        if source.is_symlink():
            # The same relative link elsewhere would lead elsewhere, perhaps outside.
            led_to = os.path.normpath(source.parent / source.readlink())
            self._remove(target)
            target.symlink_to(os.path.relpath(led_to, target.parent))
        elif not source.is_file():
            raise BadLayer(f"the hard link '{member.name}' names no file")
        else:
            self._remove(target)
            os.link(source, target, follow_symlinks=False)

    def _inside(self, link: str, folder: Path) -> str:
        """Return a symbolic link's target relative to `folder`, which cannot leave the root."""
        path = PurePosixPath("/", *folder.relative_to(self.root).parts, link)
        steps: list[str] = []
        for part in path.parts[1:]:
            if part == "..":
                steps = steps[:-1]
            elif part != ".":
                steps.append(part)
        return os.path.relpath(self.root.joinpath(*steps), folder)

    def _clear(self, folder: Path) -> None:
        """Remove what lower layers put into an opaque folder, and keep what this layer did."""
        if folder in self.cleared:
            return
        self.cleared.add(folder)
        for child in folder.iterdir():
            if child not in self.written:
                self._remove(child)

    def _remove(self, target: Path) -> None:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
            self.folders.clear()
        else:
            target.unlink(missing_ok=True)


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if len(name) > _LONGEST_NAME:
        raise BadLayer(f"the name '{name[:80]}…' is too long")
    if ".." in parts or "\0" in name:
        raise BadLayer(f"'{name}' points outside the image")
    return parts
