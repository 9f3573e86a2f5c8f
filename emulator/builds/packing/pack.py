"""An image without Docker: the files, environment and command that a Dockerfile describes.

It leaves the base image out: the local Cloud Run starts the command with the machine's own Python
or Node. Instructions that need a base image are refused, all at once, with the Dockerfile's lines.

The same commit packs to the same bytes: entries are sorted, owners and times fixed, and pip's
output is cached by everything that it depends on.
Source: OCI image specification v1.1, "Image Manifest" and "Image Configuration".
"""

from __future__ import annotations

import hashlib
import json
import platform as platforms
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from emulator.builds.errors import UsageError
from emulator.builds.packing import dockerfile as dockerfiles
from emulator.builds.packing import layer as layers
from emulator.builds.packing import tree as trees
from emulator.builds.packing.dockerfile import Dockerfile, DockerfileError, Stage
from emulator.builds.packing.findings import Findings
from emulator.builds.packing.layer import Ending, Layer, Progress
from emulator.builds.packing.search_paths import search_paths
from emulator.builds.packing.stages import StageResult, Surroundings, interpret
from emulator.builds.packing.tree import Tree
from emulator.builds.platform import host_platform
from emulator.packed import BUILDER, NODE, PACK, PYTHON, node_version

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
    contexts: Mapping[str, Path],
    dockerfile: Path,
    file: str,
    arguments: dict[str, str],
    created: int,
    platform: str,
    cache: Path,
    labels: dict[str, str],
    progress: Progress,
    ending: Ending = nullcontext,
) -> PackedImage:
    """Make the image that `dockerfile` describes from the folder `context`.

    Args:
        context: the build context.
        contexts: other folders to copy from, by the names that the Dockerfile has for them.
        dockerfile: the Dockerfile.
        file: its name in errors.
        arguments: the build arguments.
        created: the time that the image gives for itself, in Unix seconds.
        platform: `os/architecture`; dependencies are installed for this machine's only.
        cache: a folder for layers and installed dependencies; several builds may share it.
        labels: override the Dockerfile's.
        progress: called with each step that takes time, and with what is left out.
        ending: ends a program that runs, if the build is to end.

    Raises DockerfileError (a UsageError) with file and line for all that cannot be read or done
    without a base image, UsageError where the context is missing, Failed where a program fails.
    """
    if not context.is_dir():
        raise UsageError(f"{context}: there is no such folder to build from")
    description = dockerfiles.read(dockerfile, file)
    files = trees.context_tree(context, dockerfile)
    others = {
        name: trees.context_tree(folder, folder / "Dockerfile") for name, folder in contexts.items()
    }
    findings = _findings(description, files, others, arguments, platform)
    if findings.problems:
        raise DockerfileError(*findings.problems)
    for note in findings.notes:
        progress(str(note))
    known = _arguments(arguments, platform)
    around = Surroundings(
        files,
        known,
        _defaults(description, known),
        platform,
        host_platform(),
        cache,
        progress,
        finished=_named(others),
        ending=ending,
    )
    result = _final_stage(description, around)
    command = [*result.config.get("Entrypoint", []), *result.config.get("Cmd", [])]
    variables = result.env | search_paths(result.tree, result.env, command)
    if variables:
        result.config["Env"] = [f"{name}={value}" for name, value in variables.items()]
    made = tuple(layers.layer(entries, cache) for entries in result.changes)
    return _image(result, made, created, platform, labels)


def examine(
    text: str,
    files: Iterable[str],
    file: str = "Dockerfile",
    contexts: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> Findings:
    """Say what of a Dockerfile cannot be packed, and what is left out, without building anything.

    Args:
        text: the Dockerfile's.
        files: the paths in the build context, with `/`; not those that .dockerignore leaves out.
        file: the Dockerfile's name in the findings.
        contexts: the paths in other folders to copy from, by name.
    """
    others = {name: _of_names(paths) for name, paths in contexts.items()}
    try:
        description = dockerfiles.parse(text, file)
        return _findings(description, _of_names(files), others, {}, host_platform())
    except DockerfileError as error:
        return Findings(list(error.problems))


def _of_names(paths: Iterable[str]) -> Tree:
    tree: Tree = {}
    for path in paths:
        trees.add(tree, path, trees.EMPTY)
    return tree


def _named(contexts: Mapping[str, Tree]) -> dict[str, StageResult]:
    """Return other contexts as finished stages, which is how a Dockerfile uses them."""
    return {name.lower(): StageResult(tree) for name, tree in contexts.items()}


def _findings(
    description: Dockerfile,
    files: Tree,
    contexts: Mapping[str, Tree],
    arguments: dict[str, str],
    platform: str,
) -> Findings:
    arguments = _arguments(arguments, platform)
    around = Surroundings(
        files,
        arguments,
        _defaults(description, arguments),
        platform,
        platform,
        Path(),
        lambda _line: None,
        only_read=True,
        finished=_named(contexts),
    )
    findings = around.findings
    try:
        result = _final_stage(description, around)
    except DockerfileError as error:
        findings.problems += error.problems
    else:
        start = description.stages[-1].start
        if text := _other_interpreter(result):
            findings.notes.append(replace(start.note(text), kind="interpreter"))
    findings.problems.sort(key=lambda problem: problem.line)
    findings.notes.sort(key=lambda note: note.line)
    return findings


def _other_interpreter(result: StageResult) -> str:
    """Say which interpreter runs instead of the base image's; "" if it is the same version."""
    if result.base is None:
        return ""
    name, asked = result.base
    if name == "python":
        own = platforms.python_version()
        if own.startswith(f"{asked}.") or asked == "3":
            return ""
        return f"a process here runs this machine's Python {own}"
    own = node_version()
    if own.partition(".")[0] == asked.partition(".")[0]:
        return ""
    return f"a process here runs this machine's Node {own or '(which is not installed)'}"


def _arguments(given: dict[str, str], platform: str) -> dict[str, str]:
    operating_system, _, architecture = platform.partition("/")
    return {
        **given,
        "TARGETPLATFORM": platform,
        "TARGETOS": operating_system,
        "TARGETARCH": architecture,
    }


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
            "this stage has neither CMD nor ENTRYPOINT, and the base image's is not known here",
            'a CMD at the end, such as CMD ["python", "main.py"]',
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
    builder = {BUILDER: PACK}
    if result.base:  # the version that the base image has, and that a process here may not have
        name, version = result.base
        builder[PYTHON if name == "python" else NODE] = version
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
