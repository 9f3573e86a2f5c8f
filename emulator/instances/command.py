"""The command and environment of an unpacked image, for this machine.

There is no chroot: a path inside the image is a path under the folder that it was unpacked to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emulator.instances.launch import Launch, image_settings
from emulator.instances.runtime import Image

# The variables of the host that a process gets: folders, language, certificates.
_FROM_HOST = (
    "HOME",
    "TMPDIR",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
_HOST_PATH = ("/usr/bin", "/bin")


class NoCommand(Exception):
    """The image and the manifest name no command that can run; the text names the missing part."""


@dataclass(frozen=True)
class Command:
    """A command to execute: `argv[0]` is the path of an executable file."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path


def command(launch: Launch, image: Image, root: Path, python: Path) -> Command:
    """Return the command of an instance, without PORT and GCE_METADATA_HOST.

    Args:
        launch: The revision.
        image: Its image.
        root: The folder that the image was unpacked to.
        python: The folder of the python executable.

    Raises:
        NoCommand: No command can run.
    """
    settings = image_settings(image.config)
    env = {name: os.environ[name] for name in _FROM_HOST if name in os.environ}
    env.setdefault("LANG", "C.UTF-8")
    for item in settings.get("Env") or []:
        name, _, value = item.partition("=")
        env[name] = ":".join(_under(part, root) for part in value.split(":"))
    env.update(launch.env)
    env.update(launch.system_variables())
    env["PATH"] = _search_path(env, root, python)
    folder = launch.working_dir or settings.get("WorkingDir") or "/"
    # As from the root of a container: `..` leads no higher.
    cwd = root / os.path.normpath(f"/{folder}").lstrip("/")
    cwd.mkdir(parents=True, exist_ok=True)
    argv = [_under(argument, root) for argument in _argv(launch, settings)]
    return Command([_executable(argv[0], env["PATH"], cwd), *argv[1:]], env, cwd)


def _argv(launch: Launch, settings: Mapping[str, list[str] | None]) -> list[str]:
    """Return the words, as in Kubernetes: `command` replaces Entrypoint and Cmd, `args` Cmd."""
    if launch.command:
        argv = [*launch.command, *(launch.args or ())]
    elif launch.args:
        argv = [*(settings.get("Entrypoint") or []), *launch.args]
    else:
        argv = [*(settings.get("Entrypoint") or []), *(settings.get("Cmd") or [])]
    if not argv:
        raise NoCommand("The image has no command, and the manifest has none either.")
    return argv


def _under(path: str, root: Path) -> str:
    """Return the path on the host of an absolute path that exists in the image."""
    if path.startswith("/") and path.strip("/") and os.path.lexists(root / path.lstrip("/")):
        return str(root / path.lstrip("/"))
    return path


def _search_path(env: Mapping[str, str], root: Path, python: Path) -> str:
    """Return PATH: the image's own folders, then our python, then the host's basic tools.

    The image's PATH also names folders of its base image, which is missing. The host's folders of
    the same name must not take their place: the host's Python would run.
    """
    own = [part for part in env.get("PATH", "").split(":") if Path(part).is_relative_to(root)]
    return ":".join([*own, str(python), *_HOST_PATH])


def _executable(name: str, search_path: str, cwd: Path) -> str:
    if "/" in name and os.access(cwd / name, os.X_OK):
        return str(cwd / name)
    # A path in the base image, such as /usr/local/bin/python: the host has its own.
    found = shutil.which(os.path.basename(name), path=search_path)
    if found is None:
        raise NoCommand(f"The command '{name}' is neither in the image nor on this machine.")
    return found
