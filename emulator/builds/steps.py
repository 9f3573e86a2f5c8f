"""What a build asks for: the steps that run `docker build` and `docker push`, with substitutions.

Other steps run images of their own, which is not done here.
Source: https://cloud.google.com/build/docs/build-config-file-schema and
https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values.
"""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass, field
from typing import Any, NoReturn

from emulator.builds.errors import UsageError
from emulator.names import project_number

Document = dict[str, Any]

_DOCKER = re.compile(r"(gcr\.io/cloud-builders/)?docker(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
_BUILDPACKS = re.compile(r"gcr\.io/k8s-skaffold/pack\b.*|.*\bpack\b.*")
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Z_][A-Z0-9_]*)\}|([A-Z_][A-Z0-9_]*))")
_NO_DOCKERFILE = "write a Dockerfile: docs/your-service.md; buildpacks need Google's Cloud Build"


@dataclass(frozen=True)
class DockerBuild:
    """One `docker build`.

    Attributes:
        number: the step's number, from 0.
        words: its arguments after `build`, with variables replaced.
        folder: the folder that it runs in, relative to the source.
        context: the build context, relative to `folder`.
        file: the Dockerfile, relative to `folder`; "" for the context's own.
        tags: the names of the image.
        platform: `os/architecture`; "" for this machine's.
        target: the stage to stop at; "" for the last one.
    """

    number: int
    words: list[str]
    folder: str
    context: str
    file: str
    tags: list[str]
    platform: str
    target: str
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    contexts: dict[str, str] = field(default_factory=dict)
    """Name in the Dockerfile -> another folder to copy from, relative to `folder`."""


@dataclass(frozen=True)
class DockerPush:
    """One `docker push`: the step's number and the image's name."""

    number: int
    image: str


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="docker build", add_help=False, allow_abbrev=False)
    parser.add_argument("context")
    parser.add_argument("-f", "--file", default="")
    parser.add_argument("-t", "--tag", action="append", default=[], dest="tags")
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--build-context", action="append", default=[])
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--platform", default="")
    parser.add_argument("--target", default="")
    # They change how fast a build is, or what it shows.
    for option in ("--cache-from", "--network", "--progress"):
        parser.add_argument(option, action="append")
    for option in ("--no-cache", "--pull", "-q", "--quiet", "--rm", "--force-rm"):
        parser.add_argument(option, action="store_true")
    return parser


def read(build: Document) -> list[DockerBuild | DockerPush]:
    """Read a build's steps, in order.

    Raises:
        UsageError: a step does something else.
    """
    known = variables(build)
    return [_step(number, step, known) for number, step in enumerate(build["steps"])]


def images(build: Document) -> list[str]:
    """Return the images that a build pushes at its end, with variables replaced."""
    known = variables(build)
    return [expand(image, known) for image in build.get("images", [])]


def variables(build: Document) -> dict[str, str]:
    """Return the substitutions of a build: Cloud Build's own, and the user's."""
    region = build["name"].split("/")[3]
    return {
        "PROJECT_ID": build["projectId"],
        "PROJECT_NUMBER": project_number(build["projectId"]),
        "BUILD_ID": build["id"],
        "LOCATION": region,
        **build.get("substitutions", {}),
    }


def expand(text: str, known: dict[str, str]) -> str:
    """Replace $NAME and ${NAME} in a text; `$$` is a dollar sign. An unknown name is empty."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return known.get(name, "") if name else "$"

    return _VARIABLE.sub(value, text)


def _step(number: int, step: Document, known: dict[str, str]) -> DockerBuild | DockerPush:
    name, entrypoint = expand(step.get("name", ""), known), step.get("entrypoint", "")
    words = [expand(word, known) for word in step.get("args", [])]
    what = f"step {number} ({name})"
    if step.get("script") or entrypoint not in ("", "docker") or not _DOCKER.fullmatch(name):
        if _BUILDPACKS.fullmatch(name):
            raise UsageError(
                f"{what} builds with buildpacks, which the local Cloud Build does not have",
                _NO_DOCKERFILE,
            )
        raise UsageError(
            f"{what}: the local Cloud Build runs no images: only docker build and docker push",
            "leave the step out of builds on this machine",
        )
    if words[:1] == ["push"] and len(words) == 2:
        return DockerPush(number, words[1])
    if words[:2] == ["buildx", "build"]:
        words = words[1:]
    if words[:1] != ["build"]:
        raise UsageError(
            f"{what}: docker {shlex.join(words[:1])} is not known: only build and push"
        )
    try:
        found = _parser().parse_args(words[1:])
    except ValueError as error:
        raise UsageError(f"{what}: docker build: {error}") from None
    return DockerBuild(
        number=number,
        words=words[1:],
        folder=expand(step.get("dir", ""), known),
        context=found.context,
        file=found.file,
        tags=found.tags,
        platform=found.platform,
        target=found.target,
        arguments=dict(pair.partition("=")[::2] for pair in found.build_arg),
        labels=dict(pair.partition("=")[::2] for pair in found.label),
        contexts=dict(pair.partition("=")[::2] for pair in found.build_context),
    )
