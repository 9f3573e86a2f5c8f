"""The files of images, unpacked once for all instances of an image.

Two images of one service differ mostly in their last layer, the code. The layers below it are kept
as they were unpacked, and copied for the next image: instances may write to an image's own files.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

from emulator.instances import python
from emulator.instances.runtime import Image
from emulator.instances.start_failures import image_not_unpacked
from emulator.instances.unpack import Limits, unpack

_MOST = 4  # of them are kept


class _Below(NamedTuple):
    """Layers that were unpacked: their folder, and what is left of the limits after them."""

    folder: Path
    left: Limits


class UnpackedImages:
    """The folders with the files of images.

    Args:
        folder: The folder for them. Those of an earlier process are used again.
        limits: What an image may unpack to.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._locks: dict[str, asyncio.Lock] = {}
        self._below: dict[tuple[Path, ...], _Below] = {}
        for left in (self._new, self._kept):
            shutil.rmtree(left, ignore_errors=True)

    @property
    def _new(self) -> Path:
        return self._folder / "new"

    @property
    def _kept(self) -> Path:
        return self._folder / "below"

    async def of(self, image: Image, reference: str) -> Path:
        """Return the folder with the files of an image; raises StartFailed with its reference."""
        # With a link to the interpreter, which the files must not get while an instance runs.
        name = f"{image.digest.replace(':', '-')}-{python.key()}"
        root = self._folder / name
        async with self._locks.setdefault(name, asyncio.Lock()):
            if not root.exists():
                fresh = self._new / name
                fresh.mkdir(parents=True)
                try:
                    below, last = tuple(image.layers[:-1]), image.layers[-1:]
                    left = await self._copy(below, fresh) if below else self._limits
                    await asyncio.to_thread(unpack, last, fresh, self._limits, left)
                    python.link(fresh)
                    fresh.rename(root)
                except Exception as error:
                    raise image_not_unpacked(reference, error) from error
                finally:
                    shutil.rmtree(fresh, ignore_errors=True)
        return root

    async def _copy(self, layers: tuple[Path, ...], to: Path) -> Limits:
        """Copy the files of layers; return what is left of the limits. Raises like `unpack`."""
        async with self._locks.setdefault("below", asyncio.Lock()):
            below = self._below.pop(layers, None) or await self._unpack(layers, to.name)
            self._below[layers] = below  # the one that was used last is last
            while len(self._below) > _MOST:
                oldest = self._below.pop(next(iter(self._below)))
                await asyncio.to_thread(shutil.rmtree, oldest.folder, ignore_errors=True)
            # Another process copies faster, and this one answers meanwhile.
            copy = await asyncio.create_subprocess_exec(
                "cp", "-RPp", f"{below.folder}/.", str(to), stderr=asyncio.subprocess.PIPE
            )
            _, said = await copy.communicate()
            if copy.returncode:
                raise OSError(said.decode(errors="replace").strip())
        return below.left

    async def _unpack(self, layers: tuple[Path, ...], name: str) -> _Below:
        folder = self._kept / name
        folder.mkdir(parents=True)
        try:
            left = await asyncio.to_thread(unpack, layers, folder, self._limits)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return _Below(folder, left)
