"""Unpacks an image's layers to a folder.

Source: https://github.com/opencontainers/image-spec/blob/main/layer.md (changesets, whiteouts).
Layers are not trusted: nothing is written outside the folder. Every symbolic link is rewritten so
that it stays inside, and a chain of links does, too.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class UnsafeLayer(Exception):
    """A layer with an entry that points outside the image."""


def unpack(layers: Iterable[Path], root: Path) -> None:
    """Write the files of layers to a folder, without owners and device nodes.

    Args:
        layers: Tar files, lowest first.
        root: The folder, which is empty.

    Raises:
        UnsafeLayer: An entry points outside the image.
        tarfile.TarError: A layer is malformed.
        OSError: A file cannot be written.
    """
    root = root.resolve()
    for path in layers:
        with tarfile.open(path, "r:*") as layer:
            _Layer(root).apply(layer)


class _Layer:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.written: set[Path] = set()
        self.folders: set[Path] = set()

    def apply(self, layer: tarfile.TarFile) -> None:
        for member in layer:
            parts = _parts(member.name)
            if not parts:
                continue
            parent = self._folder(parts[:-1])
            name = parts[-1]
            if name == _OPAQUE:
                self._clear(parent)
            elif name.startswith(_WHITEOUT):
                self._remove(parent / name.removeprefix(_WHITEOUT))
            else:
                self._write(layer, member, parent / name)

    def _folder(self, parts: tuple[str, ...]) -> Path:
        """Return the real folder of a path in the image; creates it if it does not exist."""
        folder = self.root.joinpath(*parts)
        if folder in self.folders:
            return folder
        real = Path(os.path.realpath(folder))
        if real != self.root and self.root not in real.parents:
            raise UnsafeLayer("/".join(parts))
        real.mkdir(parents=True, exist_ok=True)
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
            source = layer.extractfile(member)
            assert source is not None
            with target.open("wb") as file:
                shutil.copyfileobj(source, file)
            target.chmod(member.mode & 0o777 | 0o600)
            os.utime(target, (member.mtime, member.mtime))
        elif member.issym():
            self._remove(target)
            target.symlink_to(self._inside(member.linkname, target.parent))
        elif member.islnk():
            parts = _parts(member.linkname)
            source_file = self._folder(parts[:-1]) / parts[-1]
            if source_file != target:
                self._remove(target)
                os.link(source_file, target, follow_symlinks=False)
        self.written.add(target)

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
    if ".." in parts:
        raise UnsafeLayer(name)
    return parts
