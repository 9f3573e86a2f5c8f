"""Reads an image from the registry as an instance needs it: config and layers for one platform."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.registry.errors import OciError
from emulator.registry.models import Manifest, Registry
from emulator.registry.names import split_reference


class ImageNotFound(Exception):
    """No image has this reference."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"Image '{reference}' not found.")
        self.reference = reference


class WrongPlatform(Exception):
    """The image has none of the requested platforms.

    `media_type` is that of the requested manifest, `offered` are the platforms of the image. The
    text is Cloud Run's, except for the platform.
    """

    def __init__(self, media_type: str, offered: Collection[str] = ()) -> None:
        super().__init__(f"Container manifest type '{media_type}' has no platform that runs here.")
        self.media_type = media_type
        self.offered = tuple(offered)


@dataclass(frozen=True)
class Image:
    """An image for one platform.

    Attributes:
        digest: The digest of its manifest, not of an index that names it. Cloud Run reports
            that one, too: https://github.com/BasedHardware/omi/pull/10702
        config: The image configuration of the OCI image specification (`config`, `rootfs`, …).
        layers: The files of its layers, lowest first, compressed as they were pushed.
        platform: `os/architecture`, with `/variant` if the config has one.
    """

    digest: str
    config: dict[str, Any]
    layers: list[Path]
    platform: str


def read(registry: Registry, reference: str, platforms: Collection[str]) -> Image:
    """Return the image that a reference names.

    From an index, the first manifest with one of the platforms is read. Attestations, whose
    platform is unknown/unknown, are skipped.

    Args:
        registry: The registry to look in.
        reference: HOST/NAME:TAG or HOST/NAME@DIGEST. The host is ignored.
        platforms: The acceptable platforms, each `os/architecture`.

    Raises:
        ImageNotFound: No image has this reference.
        WrongPlatform: The image has none of the platforms.
    """
    try:
        name, key = split_reference(reference)
        asked = registry.manifest(name, key)
        manifest, offered = _for_platform(registry, name, asked, platforms)
        if manifest is None:
            raise WrongPlatform(asked.media_type, offered)
        return _image(registry, name, asked, manifest, platforms)
    except OciError:
        raise ImageNotFound(reference) from None


def _for_platform(
    registry: Registry, name: str, manifest: Manifest, platforms: Collection[str]
) -> tuple[Manifest | None, list[str]]:
    """Return the manifest, or an index's first match, and the platforms that an index offers."""
    parsed = manifest.json()
    if "manifests" not in parsed:
        return manifest, []
    offered = []
    for entry in parsed["manifests"]:
        platform = _platform(entry.get("platform") or {})
        if "unknown" in platform.split("/"):
            continue
        offered.append(platform)
        if _fits(platform, platforms):
            return registry.manifest(name, entry["digest"]), offered
    return None, offered


def _image(
    registry: Registry, name: str, asked: Manifest, manifest: Manifest, platforms: Collection[str]
) -> Image:
    parsed = manifest.json()
    config = {}
    if "config" in parsed:
        try:
            config = json.loads(registry.blob(name, parsed["config"]["digest"]).read_bytes())
        except (ValueError, RecursionError):  # the config of an artifact may be anything
            config = {}
    platform = _platform(config if isinstance(config, dict) else {})
    if not _fits(platform, platforms):
        raise WrongPlatform(asked.media_type, [platform])
    layers = [registry.blob(name, layer["digest"]) for layer in parsed.get("layers", [])]
    return Image(manifest.digest, config, layers, platform)


def _platform(fields: dict[str, Any]) -> str:
    parts = [fields.get("os") or "unknown", fields.get("architecture") or "unknown"]
    return "/".join([*parts, fields["variant"]] if fields.get("variant") else parts)


def _fits(platform: str, platforms: Collection[str]) -> bool:
    """Return whether `platforms` has this one, with or without its variant (`arm64/v8`)."""
    return platform in platforms or "/".join(platform.split("/")[:2]) in platforms
