"""The folders that a service's images are built from, and the placeholders for those images."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.config import knative
from scripts.config.image_reference import ImageReference
from scripts.config.yamlfile import YamlFile

SOURCE = "shipway/source"
"""The annotation of service.yaml that names the folder to build; it is not sent.

`shipway/source.WORD` names the folder of a further image, which takes the place of `image: WORD`.
"""
APP = "app"
"""The placeholder for the image of the service's own folder."""
_WORD = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_LAYERS = "cache"  # the repository below the service's own that holds the layers of builds
_CONTAINERS: list[str | int] = ["spec", "template", "spec", "containers"]


def of(manifest: Mapping[str, Any], service: str) -> dict[str, str]:
    """Return the folders that a manifest names: placeholder → folder, `app` first."""
    annotations = manifest["metadata"].get("annotations") or {}
    further = {
        key.removeprefix(f"{SOURCE}."): str(folder or "")
        for key, folder in sorted(annotations.items())
        if key.startswith(f"{SOURCE}.")
    }
    return {APP: str(annotations.get(SOURCE, service)), **further}


def check(
    root: Path, file: YamlFile, sources: Mapping[str, str], images: Sequence[str | None]
) -> None:
    """Check the placeholders of a service, and their folders.

    Args:
        root: the folder that holds pipelines/.
        file: service.yaml.
        sources: placeholder → folder, as `of` returns them.
        images: the images of the service's containers.

    Raises:
        UsageError: a placeholder or a folder is wrong; names the file, line and key.
    """
    annotations = file.data["metadata"].get("annotations") or {}
    if APP not in images:
        raise file.error(
            [*_CONTAINERS, 0, "image"],
            "one container must have the image 'app', the placeholder for the commit's image",
        )
    if f"{SOURCE}.{APP}" in annotations:
        path: list[str | int] = ["metadata", "annotations", f"{SOURCE}.{APP}"]
        raise file.error(path, f"the folder of '{APP}' is the annotation {SOURCE}")
    for word, folder in sources.items():
        key = SOURCE if word == APP else f"{SOURCE}.{word}"
        path = ["metadata", "annotations", key] if key in annotations else ["metadata", "name"]
        _check_word(file, path, word, images)
        _check_folder(root, file, path, folder)


def _check_word(
    file: YamlFile, path: list[str | int], word: str, images: Sequence[str | None]
) -> None:
    if not _WORD.fullmatch(word):
        raise file.error(path, f"'{word}' is not a name: lower-case letters, digits and hyphens")
    if word == _LAYERS:
        raise file.error(path, f"'{word}' is taken by the layers of builds", "choose another name")
    if word not in images:
        raise file.error(
            path, f"no container has the image '{word}'", f"write image: {word}, or remove the line"
        )


def _check_folder(root: Path, file: YamlFile, path: list[str | int], folder: str) -> None:
    """Refuse a folder that is outside the commit, or leads outside through a link."""
    hint = "name a folder of this repository, relative to its root"
    if not folder or Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise file.error(path, f"'{folder}' is not a folder inside the repository", hint)
    inside = root.resolve()
    for place in (Path(folder), Path(folder, "Dockerfile")):
        if not (root / place).resolve().is_relative_to(inside):
            raise file.error(path, f"{place} is a link that leads outside the repository", hint)


def check_images(
    file: YamlFile,
    path: list[str | int],
    containers: Sequence[knative.Container] | None,
    words: Collection[str],
) -> None:
    """Refuse a tag, which others can move: only placeholders and digests are allowed (I2).

    Args:
        file: the file.
        path: the containers in it.
        containers: the containers.
        words: the placeholders.

    Raises:
        UsageError: an image is neither; names the file, line and key.
    """
    for index, container in enumerate(containers or []):
        image = container.image
        if image is None or image in words:
            continue
        reference = ImageReference.parse(image)
        if reference.is_by_digest:
            continue
        named = f" of container '{container.name}'" if container.name else ""
        build = f"; to build it here, add the annotation {SOURCE}.{image}: FOLDER to service.yaml"
        raise file.error(
            [*path, index, "image"],
            f"the image '{image}'{named} is not named by digest",
            f"name it by digest: {reference.repository}@sha256:…"
            f"{build if _WORD.fullmatch(image) else ''}",
        )
