"""Stand-ins for base images, of this machine's own files, where no registry has the real ones.

A stand-in for `python:…` holds the Python that runs the tests, whatever version the name says, and
pip; one for `node:…` holds this machine's Node and npm. Both have a shell, the few programs that
the Dockerfiles of tests/services run, and the certificates that this machine trusts. `apt-get` says
that it does nothing.

A stand-in gets a base image's name only if Docker neither has that image nor can pull it, and loses
it when the last process that uses stand-ins ends.
"""

from __future__ import annotations

import fcntl
import functools
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pip

WHAT = "a stand-in base image, made of this machine's files"
_LABEL = "dev.shipway.stand-in"
_PROGRAMS = ("sh", "env", "cat", "chmod", "chown", "curl", "groupadd", "ls", "mkdir", "rm",
             "useradd")  # fmt: skip
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# What a wheel may expect of a machine: https://peps.python.org/pep-0600/ and PEP 513.
_FOR_WHEELS = ("libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0",
               "libresolv.so.2", "librt.so.1", "libstdc++.so.6", "libutil.so.1")  # fmt: skip
_NPM = "usr/local/lib/node_modules/npm"
_LEFT_OUT = re.compile(
    r"/(site-packages|dist-packages|tests?|idlelib|_?tkinter[^/]*|lib2to3|ensurepip|config-[^/]+"
    r"|EXTERNALLY-MANAGED)$|\.opt-[12]\.pyc$|\.a$"
)
_FILES = {
    "usr/bin/apt-get": f'#!/bin/sh\necho "apt-get $*: nothing is done in {WHAT}" >&2\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


class BaseImages:
    """The base images that tests build from. Its stand-ins are gone when the context ends."""

    def __enter__(self) -> BaseImages:
        self._users = (Path(tempfile.gettempdir()) / "shipway-stand-ins.lock").open("a")
        fcntl.flock(self._users, fcntl.LOCK_SH)
        return self

    def __exit__(self, *_: object) -> None:
        with self._users:
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # the process that still uses them removes them
            if made := _stand_ins():
                _docker("image", "rm", "--force", *made)

    def of(self, dockerfile: str) -> list[str]:
        """Make the base images of a Dockerfile available.

        Returns:
            The names of those that are stand-ins.

        Raises:
            LookupError: one can neither be pulled nor stood in for; its name.
        """
        names = dict.fromkeys(re.findall(r"(?m)^FROM (?:--\S+ )*(\S+)", dockerfile))
        for name in names:
            if not _has(name) and _docker("pull", "--quiet", name).returncode:
                kind = name.partition(":")[0]
                if not _can_stand_in(name):
                    raise LookupError(name)
                _give(kind, name)
        return [name for name in names if name in _stand_ins()]


def _docker(*words: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["docker", *words], input=given, capture_output=True, timeout=300, check=False
    )


def _has(name: str) -> bool:
    return _docker("image", "inspect", name).returncode == 0


def _stand_ins() -> list[str]:
    listed = _docker("image", "ls", "--filter", f"label={_LABEL}", "--format",
                     "{{.Repository}}:{{.Tag}}")  # fmt: skip
    return [name for name in listed.stdout.decode().split() if re.match("(python|node):", name)]


@functools.cache
def _npm() -> Path | None:
    """Return the folder of npm, if this machine has Node and npm."""
    found = shutil.which("npm") if shutil.which("node") else None
    folder = Path(found).resolve().parent.parent if found else Path()
    return folder if (folder / "bin/npm-cli.js").is_file() else None


def _can_stand_in(name: str) -> bool:
    """Return whether this machine has what the image of a name has."""
    if name.startswith("node:"):
        return _npm() is not None
    version = re.match(r"python:3\.(\d+)", name)
    # The images of older versions have setuptools.
    return version is not None and (int(version[1]) >= 12 or sys.version_info < (3, 12))


def _give(kind: str, name: str) -> None:
    """Give the name to a stand-in of this kind, which is made unless another name has it."""
    made = next((one for one in _stand_ins() if one.startswith(f"{kind}:")), None)
    if made:
        done = _docker("tag", made, name)
    else:
        changes = ("ENV PATH=/usr/local/bin:/usr/bin:/bin", f"LABEL {_LABEL}={kind}")
        options = [word for change in changes for word in ("--change", change)]
        done = _docker("import", *options, "-", name, given=_archive(kind))
    assert done.returncode == 0, done.stderr.decode()


def _archive(kind: str) -> bytes:
    """Return the files of a stand-in as a tar archive."""
    files = io.BytesIO()
    with tarfile.open(fileobj=files, mode="w") as tar:
        for link in ("bin", "lib"):
            _link(tar, link, f"usr/{link}")
        for path, text in _FILES.items():
            _text(tar, path, text)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
        tar.add(_AUTHORITIES, str(_AUTHORITIES), filter=_plain)
        programs = {f"usr/bin/{name}": Path(str(shutil.which(name))) for name in _PROGRAMS}
        more = _python(tar, programs) if kind == "python" else _node(tar, programs)
        for path, program in programs.items():
            tar.add(program.resolve(), path, filter=_plain)
        _libraries(tar, [*programs.values(), *more])
    return files.getvalue()


def _python(tar: tarfile.TarFile, programs: dict[str, Path]) -> Iterable[Path]:
    """Add the interpreter's own library and pip; returns the modules that need libraries."""
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = Path(sysconfig.get_path("stdlib"))
    packages = Path(pip.__file__).parent.parent
    programs[f"usr/local/bin/{python}"] = Path(getattr(sys, "_base_executable", sys.executable))
    for name in ("python", "python3"):
        _link(tar, f"usr/local/bin/{name}", python)
    tar.add(library, f"usr/local/lib/{python}", filter=_plain)
    for package in packages.glob("pip*"):
        tar.add(package, f"usr/local/lib/{python}/site-packages/{package.name}", filter=_plain)
    for wheel in (library / "ensurepip/_bundled").glob("setuptools-*.whl"):  # before Python 3.12
        with zipfile.ZipFile(wheel) as files:
            for name in files.namelist():
                _text(tar, f"usr/local/lib/{python}/site-packages/{name}", files.read(name))
    _text(tar, "usr/local/bin/pip", '#!/bin/sh\nexec python3 -m pip "$@"\n')
    _text(tar, "etc/pip.conf", f"[global]\ncert = {_AUTHORITIES}\nroot-user-action = ignore\n")
    return [one for one in (library / "lib-dynload").glob("*.so") if not _LEFT_OUT.search(str(one))]


def _node(tar: tarfile.TarFile, programs: dict[str, Path]) -> Iterable[Path]:
    """Add npm; Node is one more program."""
    npm = _npm()
    assert npm
    programs["usr/local/bin/node"] = Path(str(shutil.which("node")))
    tar.add(npm, _NPM, filter=_plain)
    _text(tar, f"{_NPM}/npmrc", f"cafile={_AUTHORITIES}\n")
    _link(tar, "usr/local/bin/npm", f"../../../{_NPM}/bin/npm-cli.js")
    return ()


def _libraries(tar: tarfile.TarFile, programs: Iterable[Path]) -> None:
    """Add the shared libraries of programs where the loader looks, and the loader itself."""
    shown = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=False
    ).stdout
    found = set(re.findall(r"=> (/\S+) \(", shown))
    for name in _FOR_WHEELS:
        found |= {str(path) for path in Path("/").glob(f"*lib*/*-linux-gnu/{name}")}
    for path in sorted(found):
        tar.add(Path(path).resolve(), f"usr/lib/{Path(path).name}", filter=_plain)
    for path in sorted(set(re.findall(r"(?m)^\s+(/\S+) \(", shown))):
        tar.add(Path(path).resolve(), path, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Let root own a file; leave out what no service needs."""
    if _LEFT_OUT.search(f"/{member.name}"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _text(tar: tarfile.TarFile, path: str, text: str | bytes) -> None:
    contents = text.encode() if isinstance(text, str) else text
    member = tarfile.TarInfo(path)
    member.mode, member.size = 0o755, len(contents)
    tar.addfile(member, io.BytesIO(contents))


def _link(tar: tarfile.TarFile, path: str, target: str) -> None:
    member = tarfile.TarInfo(path)
    member.type, member.linkname = tarfile.SYMTYPE, target
    tar.addfile(member)
