"""Namespaces for the instances of packed images, made by bubblewrap. Linux only.

An instance sees its image's files at their own paths. It has an empty home folder, its own /tmp and
its own processes. Of this machine it sees, read-only, the programs and libraries that the image's
base image would have: /usr without /usr/local, a few files of /etc, and the interpreters.

Source: https://github.com/containers/bubblewrap, bwrap(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from emulator.instances import python
from emulator.instances.command import CERTIFICATES, HOST, Command, node_folder, shown

_TOP = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Folders of this machine in which a base image has files of its own.
_NOT_SHARED = ("/usr/local", "/usr/src")
_ETC = (
    *("alternatives", "ca-certificates", "crypto-policies", "fonts", "gai.conf", "host.conf"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf"),
    *("pki", "protocols", "resolv.conf", "services", "ssl", "timezone"),
)
# Made anew for each instance, whatever the image has there.
_OWN = ("proc", "dev", "sys", "tmp", "run")
_OWN_ETC = ("hosts", "resolv.conf", "hostname")
_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--hostname", "localhost", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    *("--dev", "/dev", "--proc", "/proc", "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108  (the sandbox's)
    *("--dir", "/run", "--dir", "/var/tmp"),  # noqa: S108  (the sandbox's)
    *("--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu"),
)
_PATIENCE = 10.0  # seconds


class NoSandbox(Exception):
    """This machine has no sandbox; the text says why, and what to do."""


class Started(NamedTuple):
    """What starts a command in a sandbox.

    The file descriptors must be passed on to the new process, and closed afterwards.
    """

    argv: list[str]
    descriptors: list[int]


class Bind(NamedTuple):
    """A folder of this machine, and where a sandbox shows it."""

    folder: Path
    inside: str
    read_only: bool = False


class Sandbox:
    """Starts commands in namespaces; created by `find`."""

    def __init__(self, bwrap: str) -> None:
        self._bwrap = bwrap
        self._outside = _prefixes()
        taken = [Path("/root"), Path("/home")]
        free = [h for h in taken if not any(p.is_relative_to(h) for p in self._outside)]
        self.home = str(free[0] if free else "/srv/home")

    @classmethod
    def find(cls) -> Sandbox:
        """Return a sandbox that works on this machine.

        Raises:
            NoSandbox: There is none.
        """
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise NoSandbox(
                "bubblewrap is not installed. On Debian and Ubuntu: apt-get install bubblewrap."
            )
        if python.interpreter().is_relative_to("/usr/local"):
            raise NoSandbox("Python is in /usr/local, where an image has files of its own.")
        made = cls(bwrap)
        everything = ["--ro-bind", "/", "/", *_NAMESPACES[: _NAMESPACES.index("--perms")]]
        try:
            subprocess.run(
                [bwrap, *everything, "true"], capture_output=True, text=True, check=True,
                timeout=_PATIENCE,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip() or f"exit code {error.returncode}"
            raise NoSandbox(f"This machine allows no namespaces ({why}).") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoSandbox(f"bubblewrap does not run: {error}.") from error
        return made

    def command(
        self,
        run: Command,
        root: Path,
        user: str,
        metadata: str,
        *more: str,
        binds: Sequence[Bind] = (),
    ) -> Started:
        """Return what starts a command.

        Its variables are not in the command line, which every user of the machine can read.

        Args:
            run: The command, as the sandbox sees it.
            root: The image's files.
            user: The image's user: a name, a number, or "" for root.
            metadata: The address that has the name metadata.google.internal; "" for none.
            more: More arguments for bubblewrap.
            binds: Folders that the command sees besides the image's.
        """
        number, name = _user(user, root)
        hosts = "127.0.0.1 localhost\n::1 localhost\n"
        hosts += f"{metadata} metadata.google.internal metadata\n" if metadata else ""
        files = {"/etc/hosts": hosts}
        if not (root / "etc/passwd").exists():
            files["/etc/passwd"] = _passwd(number, name, self.home)
        descriptors = [_in_memory(text) for text in files.values()]
        arguments = [*_NAMESPACES, *more, "--uid", str(number), "--gid", str(number)]
        arguments += ["--dir", self.home, *_layout(root)]
        for prefix in self._outside:
            arguments += ["--ro-bind", str(prefix), shown(str(prefix))]
        for variable in CERTIFICATES:
            # Of this machine only: a manifest could name any of its folders.
            path = os.environ.get(variable)
            if path and path == run.env.get(variable):
                arguments += ["--ro-bind-try", path, path]
        for path, descriptor in zip(files, descriptors, strict=True):
            arguments += ["--file", str(descriptor), path]
        for bind in binds:
            kind = "--ro-bind" if bind.read_only else "--bind"
            arguments += [kind, str(bind.folder), bind.inside]
        arguments += ["--dir", run.cwd, "--chdir", run.cwd, "--clearenv"]
        for variable, value in run.env.items():
            arguments += ["--setenv", variable, value]
        descriptors.append(_in_memory("".join(f"{word}\0" for word in arguments)))
        argv = [self._bwrap, "--args", str(descriptors[-1]), "--", *run.argv]
        return Started(argv, descriptors)


def _prefixes() -> list[Path]:
    """Return the folders that interpreters outside the system's folders need, and no others."""
    interpreter = python.interpreter()
    home = interpreter.parent.parent
    needed = [home / "bin", home / "lib", home / "lib64"]
    if node := node_folder():
        needed += [Path(node), Path(node).parent / "lib/node_modules"]
    system = [Path("/", name) for name in _TOP]
    return [
        folder
        for folder in dict.fromkeys(needed)
        if folder.is_dir()
        and (folder.is_relative_to("/usr/local") or not any(map(folder.is_relative_to, system)))
    ]


def _user(user: str, root: Path) -> tuple[int, str]:
    """Return the number and name of an image's user."""
    user = user.partition(":")[0] or "root"
    if user == "root":
        return 0, user
    if user.isdecimal():
        return int(user), "app"
    try:
        lines = (root / "etc/passwd").read_text().splitlines()
    except (OSError, ValueError):
        lines = []
    found = [line.split(":") for line in lines if line.startswith(f"{user}:")]
    if found and len(found[0]) > 2 and found[0][2].isdecimal():
        return int(found[0][2]), user
    return 1000, user


def _passwd(number: int, name: str, home: str) -> str:
    users = {0: "root", 65534: "nobody", number: name}
    return "".join(f"{name}:x:{n}:{n}::{home}:/bin/sh\n" for n, name in users.items())


def _in_memory(text: str) -> int:
    """Return a file descriptor that reads a text."""
    descriptor = os.memfd_create("shipway")  # type: ignore[attr-defined,unused-ignore]  # Linux only
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _layout(root: Path) -> list[str]:
    """Return the arguments that put an image's files over those of this machine."""
    arguments: list[str] = []
    linked: dict[str, list[Path]] = {}
    for name in _TOP:
        here = Path("/", name)
        if here.is_symlink():
            arguments += ["--symlink", os.readlink(here), str(here)]
            # An image's /bin/x belongs into /usr/bin, if /bin is a link there.
            linked.setdefault(os.path.realpath(here), []).append(root / name)
    for name in _TOP:
        here = Path("/", name)
        if here.is_dir() and not here.is_symlink():
            arguments += _shared(f"/{name}", [root / name], linked)
    arguments += ["--dir", "/etc"]
    own = _entries([root / "etc"])
    for name in _ETC:
        ours = os.path.realpath(f"/etc/{name}")
        if (name not in own or name in _OWN_ETC) and os.path.exists(ours):
            arguments += ["--ro-bind", ours, f"/etc/{name}"]
    for name, path in own.items():
        if name not in _OWN_ETC:
            arguments += _mount(path, f"/etc/{name}")
    for name, path in _entries([root]).items():
        if name not in (*_TOP, *_OWN, "etc"):
            arguments += _mount(path, f"/{name}")
    return arguments


def _shared(inside: str, images: list[Path], linked: dict[str, list[Path]]) -> Iterator[str]:
    """Yield the arguments for a folder that both this machine and the image may have."""
    images = [*images, *linked.get(inside, [])]
    images = [image for image in images if image.is_dir() and not image.is_symlink()]
    if not images and inside != "/usr":
        yield from ("--ro-bind", inside, inside)
        return
    yield from ("--dir", inside)
    own = _entries(images)
    with os.scandir(inside) as entries:
        for entry in entries:
            place = f"{inside}/{entry.name}"
            theirs = own.get(entry.name)
            if place in _NOT_SHARED:
                continue
            if entry.is_dir(follow_symlinks=False) and (not theirs or theirs.is_dir()):
                own.pop(entry.name, None)
                yield from _shared(place, [image / entry.name for image in images], linked)
            elif theirs is None and entry.is_symlink():
                yield from ("--symlink", os.readlink(place), place)
            elif theirs is None and inside == "/usr":
                yield from ("--ro-bind", place, place)
            elif theirs is None:
                # A link costs less than a mount, and a folder may have a thousand files.
                yield from ("--symlink", f"{HOST}{place}", place)
    if inside != "/usr":
        yield from ("--ro-bind", inside, f"{HOST}{inside}")
    for name, path in own.items():
        yield from _mount(path, f"{inside}/{name}")


def _entries(folders: list[Path]) -> dict[str, Path]:
    """Return the entries of folders by name; of two with one name, the first."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir() and not folder.is_symlink():
            for path in sorted(folder.iterdir()):
                found.setdefault(path.name, path)
    return found


def _mount(path: Path, inside: str) -> list[str]:
    """Return the arguments that show a file, folder or link of the image."""
    if path.is_symlink():
        return ["--symlink", os.readlink(path), inside]
    return ["--bind", str(path), inside]
