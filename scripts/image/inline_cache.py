"""The earlier images from which Docker's engine reuses layers.

The engine writes into an image which steps made its layers. Engines of today's Debian (20.10) leave
out the layers that they reused from another image: the image after the next one would be built
without a cache. So a label also names the images that layers were reused from, and the next build
gets as many of them as it needs to have every layer.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from scripts.cloud.registry import Registry

LABEL = "dev.shipway.layers"  # the commits of those images, nearest first


def sources(registry: Registry, repository: str, nearest: str) -> list[str]:
    """Return the tags of the images to reuse layers from, `nearest` first.

    Args:
        registry: the registry.
        repository: the images' path in it.
        nearest: the tag of the newest one.

    Raises:
        Failed: the registry refuses.
    """
    found = registry.image(repository, nearest)
    if found is None:
        return [nearest]
    manifest, config = found
    wanted = {layer["digest"] for layer in manifest["layers"]} - _known(manifest, config)
    tags = [nearest]
    labels = (config.get("config") or {}).get("Labels") or {}
    for tag in labels.get(LABEL, "").split():
        older = registry.image(repository, tag)
        if older and (known := _known(*older) & wanted):
            tags.append(tag)
            wanted -= known
    return tags


def _known(manifest: dict[str, Any], config: dict[str, Any]) -> set[str]:
    """Return the digests of the layers whose steps an image lists.

    Source: BuildKit's cache/remotecache/v1/doc.go and its inline exporter.
    """
    written = config.get("moby.buildkit.cache.v0")
    if not isinstance(written, str):
        return set()
    layers = manifest["layers"]
    numbers = {
        result["layer"]
        for record in json.loads(base64.b64decode(written))
        for result in record.get("layers") or []
    }
    return {layers[number]["digest"] for number in numbers if number < len(layers)}
