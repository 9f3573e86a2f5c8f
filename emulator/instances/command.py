"""The command and environment of an unpacked image, for this machine.

In a sandbox, the image's files are at their own paths. Without one, a path inside the image is a
path under the folder that it was unpacked to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emulator.instances import python
from emulator.instances.launch import Launch, image_settings
from emulator.instances.runtime import Image

# The variables of the host that a process gets: language and certificates. No variable tells it
# where the user's credentials, configuration or Docker engine are.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_FROM_HOST = ("LANG", *CERTIFICATES)
_HOST_PATH = ("/usr/bin", "/bin")
# Where a sandbox shows folders of the host whose places the image takes.
HOST = "/run/host"
# PATH of an image that sets none.
_IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NoCommand(Exception):
    """The image and the manifest name no command that can run; the text names the missing part."""


@dataclass(frozen=True)
class Command:
    """A command to execute: `argv[0]` is the path of an executable file."""

    argv: list[str]
    env: dict[str, str]
    cwd: str


def command(launch: Launch, image: Image, root: Path, *, sandboxed: bool) -> Command:
    """Return the command of an instance, without PORT, HOME and the metadata server's variables.

    Args:
        launch: The revision.
        image: Its image.
        root: The folder that the image was unpacked to.
        sandboxed: Whether the image's files are at their own paths.

    Raises:
        NoCommand: No command can run.
    """
    settings = image_settings(image.config)
    seen_from = None if sandboxed else root
    env = {name: os.environ[name] for name in _FROM_HOST if name in os.environ}
    env.setdefault("LANG", "C.UTF-8")
    for item in settings.get("Env") or []:
        name, _, value = item.partition("=")
        env[name] = ":".join(_seen(part, seen_from) for part in value.split(":"))
    env.update(launch.env)
    env.update(launch.system_variables())
    folders = _search_path(env.get("PATH", _IMAGE_PATH), root, seen_from)
    env["PATH"] = ":".join(folders)
    # As from the root of a container: `..` leads no higher.
    folder = os.path.normpath(f"/{launch.working_dir or settings.get('WorkingDir') or ''}")
    folder = folder.lstrip("/")
    cwd = f"/{folder}" if sandboxed else str(root / folder)
    argv = [_seen(argument, seen_from) for argument in _argv(launch, settings)]
    _check(argv, env, folder)
    return Command([_executable(argv[0], folders, cwd, root, seen_from), *argv[1:]], env, cwd)


def node_folder() -> str | None:
    """Return the folder of the user's Node, which may be outside the system's folders."""
    found = shutil.which("node")
    return os.path.dirname(os.path.realpath(found)) if found else None


def shown(path: str) -> str:
    """Return where a sandbox shows a folder of the host."""
    return f"{HOST}{path}" if path.startswith("/usr/local/") else path


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


def _check(argv: list[str], env: Mapping[str, str], folder: str) -> None:
    """Raise NoCommand for what no process can get: NUL ends a text.

    In the arguments of a sandbox, what follows it would be an argument of its own.
    """
    if "\0" in folder or any("\0" in word for word in argv):
        raise NoCommand("The command or the working directory has a NUL character.")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise NoCommand(f"{name!r} cannot be the name of an environment variable.")
        if "\0" in value:
            raise NoCommand(f"The environment variable {name} has a NUL character.")


def _seen(path: str, root: Path | None) -> str:
    """Return an absolute path of the image, if it exists there, as a path under `root`, if any."""
    inside = path.lstrip("/")
    if root and path.startswith("/") and inside and os.path.lexists(root / inside):
        return str(root / inside)
    return path


def _search_path(given: str, root: Path, seen_from: Path | None) -> list[str]:
    """Return the folders of PATH: the image's own, our Python's, then the host's basic tools.

    The image's PATH also names folders of its base image, which is missing. Without a sandbox, the
    host's folders of the same name must not take their place: the host's Python would run.
    """
    folders = given.split(":")
    if seen_from is None:
        folders = [part for part in folders if part not in _HOST_PATH]
    else:
        folders = [part for part in folders if Path(part).is_relative_to(root)]
    ours = _seen(f"/{python.FOLDER}/bin", seen_from)
    more = [ours, *_HOST_PATH]
    if node := node_folder():
        more.append(node if seen_from else shown(node))
    return [*folders, *(part for part in dict.fromkeys(more) if part not in folders)]


def _executable(name: str, folders: list[str], cwd: str, root: Path, seen_from: Path | None) -> str:
    """Return the path of a command, as the instance sees it."""

    def runs(path: str) -> bool:
        if seen_from is None and os.access(root / path.lstrip("/"), os.X_OK):
            return True
        if seen_from is None and path.startswith("/usr/local/"):
            return False
        here = path.removeprefix(HOST)
        return os.path.isfile(here) and os.access(here, os.X_OK)

    if "/" in name and runs(path := os.path.normpath(os.path.join(cwd, name))):
        return path
    # A path in the base image, such as /usr/local/bin/python3.9: the host has its own.
    base = os.path.basename(name)
    for folder in folders:
        if runs(found := os.path.join(folder, base)):
            return found
    raise NoCommand(f"The command '{name}' is neither in the image nor on this machine.")
