"""Pushes built images into the local registry, as the account of their build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emulator.builds import engine
from emulator.builds.errors import Failed
from emulator.builds.packing.pack import PackedImage
from emulator.registry.errors import OciError
from emulator.registry.models import Registry
from emulator.registry.names import split_reference

_PIECE = 1 << 20  # bytes
_UPLOAD = "artifactregistry.repositories.uploadArtifacts"


class Pusher:
    """Pushes images.

    Args:
        registry: The registry.
        host: Its address for the Docker engine, HOST:PORT.
        may: `may(email, permission, image)` is whether an account has a permission on the
            repository of an image.
        token: Returns an access token of an account, for the Docker engine; "" if none is needed.
    """

    def __init__(
        self,
        registry: Registry,
        host: str,
        may: Callable[[str, str, str], bool],
        token: Callable[[str], str],
    ) -> None:
        self._registry = registry
        self._host = host
        self._may = may
        self._token = token

    def push(
        self, image: PackedImage, reference: str, account: str, say: Callable[[str], None]
    ) -> str:
        """Push the missing parts of an image; the tag last, so that it never names half of one.

        Args:
            image: The image.
            reference: HOST/NAME:TAG.
            account: The account that pushes; "" for the default one.
            say: Called with what was pushed.

        Returns:
            The manifest's digest.

        Raises:
            OciError: The registry refuses it.
            Failed: The account may not push.
        """
        name, tag = self._checked(reference, account)
        sent = layers = 0
        for layer in image.layers:
            if self._blob(name, layer.digest, layer.path):
                sent, layers = sent + layer.size, layers + 1
        self._blob(name, image.config_digest, image.config)
        self._registry.put_manifest(name, tag, image.media_type, image.manifest)
        there = len(image.layers) - layers
        say(f"pushed {readable(sent)}; layers: {layers} new, {there} already there")
        return image.digest

    def push_from_engine(
        self, image: str, reference: str, account: str, say: Callable[[str], None]
    ) -> str:
        """Push an image that the Docker engine has; otherwise as `push`."""
        name, tag = self._checked(reference, account)
        engine.push(image, self._host, f"{name}:{tag}", self._token(account), say)
        return self._registry.manifest(name, tag).digest

    def _checked(self, reference: str, account: str) -> tuple[str, str]:
        """Return an image's name and tag, if the account may push there."""
        name, tag = split_reference(reference)
        if self._registry.rules:
            self._registry.rules.check_name(name)
        if account and not self._may(account, _UPLOAD, name):
            raise Failed(f'{account}: denied: Permission "{_UPLOAD}" denied on "{name}"')
        return name, tag

    def _blob(self, name: str, digest: str, contents: Path | bytes) -> bool:
        """Store a blob that is missing; return whether it was."""
        try:
            self._registry.blob(name, digest)
        except OciError:
            pass
        else:
            return False
        upload = self._registry.start_upload(name)
        try:
            if isinstance(contents, bytes):
                upload.write(contents)
            else:
                with contents.open("rb") as file:
                    while piece := file.read(_PIECE):
                        upload.write(piece)
        except BaseException:
            self._registry.cancel_upload(upload)
            raise
        self._registry.complete_upload(upload, digest)
        return True


def readable(size: int) -> str:
    """Format a number of bytes: 512 B, 10.4 kB, 2.3 MB."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
