"""An image without Docker: the files, environment and command that a Dockerfile describes.

It leaves the base image out: the local Cloud Run starts the command with the machine's own Python.
Instructions that need a base image (RUN other than `pip install --target`) are refused with the
Dockerfile's line.

The same commit packs to the same bytes: entries are sorted, owners and times fixed, and pip's
output is cached by everything that it depends on.
Source: OCI image specification v1.1, "Image Manifest" and "Image Configuration".
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.errors import UsageError
from scripts.image.packing import dockerfile as dockerfiles
from scripts.image.packing import layer as layers
from scripts.image.packing import tree as trees
from scripts.image.packing.dockerfile import Dockerfile, Stage
from scripts.image.packing.layer import Layer, Progress
from scripts.image.packing.stages import StageResult, Surroundings, interpret
from scripts.machine.platform import host_platform

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class PackedImage:
    """An image ready to push.

    Attributes:
        manifest: its JSON, byte for byte.
        config: its JSON, byte for byte.
        digest: the manifest's.
        media_type: the manifest's.
        layers: lowest first, each a file in the cache.
        platform: `os/architecture`.
    """

    manifest: bytes
    config: bytes
    digest: str
    media_type: str
    layers: tuple[Layer, ...]
    platform: str

    @property
    def config_digest(self) -> str:
        """The configuration's digest."""
        return _digest(self.config)


def pack(
    context: Path,
    *,
    dockerfile: Path,
    commit: str,
    created: int,
    platform: str,
    cache: Path,
    labels: dict[str, str],
    progress: Progress,
) -> PackedImage:
    """Make the image that `dockerfile` describes from the folder `context`.

    Args:
        context: the build context.
        dockerfile: the Dockerfile.
        commit: the full SHA, the Dockerfile's build argument COMMIT_SHA.
        created: the commit's time in Unix seconds.
        platform: `os/architecture`; dependencies are installed for this machine's only.
        cache: a folder for layers and installed dependencies; several builds may share it.
        labels: override the Dockerfile's.
        progress: called with each step that takes time.

    Raises DockerfileError (a UsageError) with file and line for what cannot be read or done without
    a base image, UsageError where the context is missing, Failed where pip fails.
    """
    if not context.is_dir():
        raise UsageError(f"{context}: there is no such folder to build from")
    # The context may be a checkout in a temporary folder: errors name app/Dockerfile instead.
    known_as = os.path.relpath(dockerfile, context.parent)
    description = dockerfiles.read(dockerfile, known_as)
    operating_system, _, architecture = platform.partition("/")
    arguments = {
        "COMMIT_SHA": commit,
        "TARGETPLATFORM": platform,
        "TARGETOS": operating_system,
        "TARGETARCH": architecture,
    }
    defaults = _defaults(description, arguments)
    around = Surroundings(
        trees.context_tree(context, dockerfile),
        arguments,
        defaults,
        platform,
        host_platform(),
        cache,
        progress,
    )
    result = _final_stage(description, around)
    made = tuple(layers.layer(entries, cache) for entries in result.changes)
    return _image(result, made, created, platform, labels)


def _defaults(description: Dockerfile, arguments: dict[str, str]) -> dict[str, str]:
    """Return the values of the ARGs before the first FROM."""
    known = dict(arguments)
    for instruction in description.arguments:
        for word in instruction.raw_words():
            name, equals, default = word.partition("=")
            if equals and name not in arguments:
                known[name] = instruction.expand(default, known)
    return known


def _final_stage(description: Dockerfile, around: Surroundings) -> StageResult:
    """Run the stages that the last one needs, in order."""
    last = len(description.stages) - 1
    needed = _needed(description.stages, around.defaults)
    for number, stage in enumerate(description.stages):
        if number not in needed:
            continue
        base = stage.start.expand(stage.base, around.defaults).lower()
        result = interpret(stage, around.finished.get(base), around)
        around.finished[str(number)] = result
        if stage.name:
            around.finished[stage.name] = result
    result = around.finished[str(last)]
    if not result.config.get("Cmd") and not result.config.get("Entrypoint"):
        raise description.stages[last].start.error(
            "this stage has neither CMD nor ENTRYPOINT, and the pack builder does not know the "
            "base image's; add one, or build with --builder docker"
        )
    return result


def _needed(stages: list[Stage], defaults: dict[str, str]) -> set[int]:
    """Return the numbers of the stages that the last one needs; a stage for tests is not one."""
    numbers: dict[str, int] = {}
    uses: list[set[int]] = []
    for number, stage in enumerate(stages):
        names = [stage.start.expand(stage.base, defaults)]
        for instruction in stage.instructions:
            names += [value for flag, value in instruction.flags if flag == "from"]
            for value in (value for flag, value in instruction.flags if flag == "mount"):
                names += [part[5:] for part in value.split(",") if part.startswith("from=")]
        uses.append({numbers[name.lower()] for name in names if name.lower() in numbers})
        numbers[str(number)] = number
        if stage.name:
            numbers[stage.name] = number
    needed, waiting = set[int](), [len(stages) - 1]
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            waiting += uses[number]
    return needed


def _image(
    result: StageResult,
    layers: tuple[Layer, ...],
    created: int,
    platform: str,
    labels: dict[str, str],
) -> PackedImage:
    builder = {
        "dev.shipway.builder": "pack",
        "dev.shipway.python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    time = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    operating_system, _, architecture = platform.partition("/")
    config: dict[str, Any] = {
        "created": time,
        "architecture": architecture,
        "os": operating_system,
        "config": result.config | {"Labels": result.config.get("Labels", {}) | labels | builder},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": time, **event} for event in result.history],
    }
    config_bytes = _json(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": _CONFIG_TYPE,
            "digest": _digest(config_bytes),
            "size": len(config_bytes),
        },
        "layers": [
            {"mediaType": _LAYER_TYPE, "digest": layer.digest, "size": layer.size}
            for layer in layers
        ],
        "annotations": labels | builder,
    }
    contents = _json(manifest)
    return PackedImage(contents, config_bytes, _digest(contents), MANIFEST_TYPE, layers, platform)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(contents: bytes) -> str:
    return f"sha256:{hashlib.sha256(contents).hexdigest()}"
