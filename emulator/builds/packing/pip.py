"""The programs that a RUN may start: pip, uv, npm, yarn, pnpm.

They run on this machine, with this Python or Node, in a copy of the stage's files. Their output is
cached by everything that it depends on.
"""

from __future__ import annotations

import base64
import filecmp
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from emulator.builds.errors import Failed
from emulator.builds.packing import layer as layers
from emulator.builds.packing import tree as trees
from emulator.builds.packing.dockerfile import Instruction
from emulator.builds.packing.layer import Ending, Progress
from emulator.builds.packing.program import Program
from emulator.builds.packing.tree import Entry, Tree

# The variables of this machine that programs get: paths, credentials, certificates, proxies.
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TMPDIR|TEMP|TMP|SYSTEMROOT|XDG_.*|PIP_.*|UV_.*|NPM_CONFIG_.*|NETRC"
    r"|(?:https?|all|no|ftp)_proxy|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NODE_EXTRA_CA_CERTS",
    re.IGNORECASE,
)
# These would make pip and uv write their files elsewhere, or go without this machine's cache.
_HELD_BACK = frozenset(
    {"PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_TARGET", "PIP_PYTHON", "PIP_DRY_RUN",
     "PIP_NO_CACHE_DIR", "PIP_REQUIRE_VIRTUALENV", "UV_PROJECT_ENVIRONMENT", "UV_NO_CACHE",
     "UV_SYSTEM_PYTHON"}
)  # fmt: skip
_COMPILERS = 4  # processes
_LINES = 15  # of a program's output, shown when it fails
_NODE = ("npm", "yarn", "pnpm")
# Docker's images of Python before 3.12 have setuptools, and so does a `venv` made by such a Python:
# packages import `pkg_resources` without asking for it. This version, which newer ones of these
# images have, is the last major one with `pkg_resources` that runs on every Python here.
# https://github.com/docker-library/python/issues/952
_SETUPTOOLS = "setuptools==79.0.1"
_OWN = f"python{sys.version_info.major}.{sys.version_info.minor}"
_INTERPRETER = str(Path(sys._base_executable))  # type: ignore[attr-defined]  # typeshed leaves it out
# A line of a requirements file that names no file: a package, its hashes, an option.
_INDEX_ONLY = re.compile(
    r"[A-Za-z0-9][\w.-]*(\[[\w,. -]*\])?\s*([=<>!~;].*|@\s*(https?|git\+\w+)://.*|--hash.*)?"
    r"|--hash=.*|(https?|git\+\w+)://.*|--(extra-)?index-url[ =]\S+|--trusted-host[ =]\S+|--pre"
    r"|--(only|no)-binary[ =].*|--require-hashes|-i\s.*"
)
_OF_THIS_MACHINE = ("direct_url.json", "uv_cache.json")  # of a package from a folder
# A script's first line; of a long path, three lines, with which /bin/sh calls the interpreter.
_FIRST_LINE = re.compile(rb"#!/bin/sh\n''" rb"'exec' ([^\n]*)\n' ''" rb"'\n|#!([^\n]*)\n")


@dataclass(frozen=True)
class Run:
    """A program of a RUN, and everything that it depends on.

    Attributes:
        tree: the stage's files before it.
        mounted: the files that `--mount=type=bind` adds while it runs.
        variables: the stage's ENV and ARG.
        owner: uid and gid of the files that it writes.
        python: the version in the names of the base image's folders.
    """

    instruction: Instruction
    program: Program
    tree: Tree
    mounted: Tree
    variables: Mapping[str, str]
    owner: tuple[int, int]
    platform: str
    python: str


def run(step: Run, cache: Path, progress: Progress, host_platform: str, ending: Ending) -> Tree:
    """Return what a program adds, changes and removes, from the cache if it ran before.

    Raises:
        DockerfileError: the platform is not `host_platform`, or the program is not installed.
        Failed: the program fails; its last lines are the evidence.
    """
    program = step.program
    if step.platform != host_platform:
        raise step.instruction.error(
            f"packing installs for this machine, {host_platform}, not for {step.platform}"
        )
    step = replace(step, tree=_needed(step))
    key = layers.key_of(
        "run",
        [program.argv, program.folder, program.prefix, program.makes, program.environment],
        layers.listed(step.tree),
        layers.listed(step.mounted),
        sorted(_own_variables(step).items()),
        [step.owner, step.platform, step.python, platform.python_version()],
        _SETUPTOOLS if _base_has_setuptools(step) else "",
    )
    result = cache / "runs" / key
    index = result / "index.json"
    if index.is_file():
        return _read(result, key)
    progress(f"RUN {program.text}")
    with layers.turn(cache, key, ending):
        if not index.is_file():
            result.parent.mkdir(parents=True, exist_ok=True)
            with layers.scratch(cache) as folder:
                _install(step, folder / "run", ending)
                try:
                    (folder / "run").rename(result)
                except OSError:
                    if not index.is_file():  # otherwise another build was faster: use its result
                        raise
    return _read(result, key)


def _needed(step: Run) -> Tree:
    """Return the files that the result depends on, so that other files may change without a run.

    For a pip that names packages and requirements files only, these are those files and what is
    installed; for `npm ci` without scripts of the package itself, the package's description.
    """
    tree, program = step.tree, step.program
    if program.argv[:2] == ("npm", "ci"):
        folder = program.folder.strip("/")
        names = ["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"]
        paths = [f"{folder}/{name}".strip("/") for name in names]
        return tree if _runs_own_scripts(tree, paths[0]) else _with_parents(tree, paths)
    if program.reads is None or any(name.startswith("PIP_") for name in step.variables):
        return tree
    paths, waiting = [], list(program.reads)
    while waiting:
        path = waiting.pop()
        more = _requirements(tree, path)
        if more is None:
            return tree
        paths.append(path)
        waiting += [other for other in more if other not in paths]
    return _with_parents(tree, [*paths, *(path for path in tree if path.startswith(program.makes))])


def _with_parents(tree: Tree, paths: Iterable[str]) -> Tree:
    kept: Tree = {}
    for path in sorted(set(paths)):
        if path in tree:
            trees.add(kept, path, tree[path])
    return kept


def _requirements(tree: Tree, path: str) -> list[str] | None:
    """Return the files that a requirements file names; None if it names packages in files."""
    entry = tree.get(path)
    if entry is None or entry.source is None:
        return None
    try:
        text = entry.source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = []
    for written in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", written).strip()
        named = re.fullmatch(r"(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", line)
        if named and "://" not in named[1]:
            found.append(trees.inside(named[1], os.path.dirname(path)))
        elif line and not _INDEX_ONLY.fullmatch(line):
            return None
    return found


def _runs_own_scripts(tree: Tree, path: str) -> bool:
    """Return whether `npm ci` may read more than the description of the package at `path`."""
    entry = tree.get(path)
    try:
        text = entry.source.read_text(encoding="utf-8") if entry and entry.source else ""
    except (OSError, UnicodeDecodeError):
        return True
    own = r'"(?:pre|post)?(?:install|prepare|prepublish)"|"workspaces"|"file:'
    return not text or bool(re.search(own, text))


def _install(step: Run, folder: Path, ending: Ending) -> None:
    """Run the program; write the new files to `files/` in `folder`, and a list to `index.json`."""
    program = step.program
    root = folder / "root"
    trees.write_out(step.tree.items(), root)
    trees.write_out(step.mounted.items(), root)
    workdir = root / program.folder.strip("/")
    workdir.mkdir(parents=True, exist_ok=True)
    known = {str(path) for path in root.rglob("*")}
    if program.prefix is not None:
        _enter(root / program.prefix, step.python)
        if _base_has_setuptools(step):
            argv = ("pip", "install", "--no-deps", _SETUPTOOLS)
            _call(replace(step, program=replace(program, argv=argv)), root, workdir, ending)
    _call(step, root, workdir, ending)
    if program.prefix is not None:
        _leave(root / program.prefix, step.python)
    if program.name in ("pip", "uv", "poetry"):
        _compile(step, root)
    _keep_new(root, known, folder, step)
    shutil.rmtree(root)


def _compile(step: Run, root: Path) -> None:
    """Compile what a pip or uv installed.

    Not with pip, which compiles under a random path and writes that path into every file.
    Hash-checked files, because the images' times say nothing about the source's.
    """
    made = [root / path for path in step.program.makes]
    inside = [sorted(path.iterdir()) if path.is_dir() else [path] for path in made if path.exists()]
    paths = [str(path) for group in inside for path in group]
    options = ["-q", "-s", str(root), "-p", "/", "--invalidation-mode", "checked-hash"]
    # The bytes depend on what a process compiled before, so not on this machine's CPUs.
    parts = [paths[number::_COMPILERS] for number in range(_COMPILERS)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "compileall", *options, *part],
            env=_environment(step, root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for part in parts
        if part
    ]
    for process in running:
        process.wait()  # it fails on files that are meant for another Python


def _enter(prefix: Path, version: str) -> None:
    """Make a folder a Python environment, so that pip finds what is installed in it.

    Its packages lie where the base image has them, in a folder named after the base's version.
    """
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    (prefix / f"lib/python{version}/site-packages").mkdir(parents=True, exist_ok=True)
    (prefix / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(_INTERPRETER)}\ninclude-system-site-packages = false\n"
    )
    (prefix / "bin/python3").symlink_to(_INTERPRETER)
    if not (prefix / "lib" / _OWN).exists():
        (prefix / "lib" / _OWN).symlink_to(f"python{version}")
    if sys.platlibdir != "lib":
        (prefix / sys.platlibdir).symlink_to("lib")


def _base_has_setuptools(step: Run) -> bool:
    """Return whether pip finds setuptools in the base image, and an index can be asked for it."""
    program = step.program
    if program.name != "pip" or "install" not in program.argv or "--no-index" in program.argv:
        return False
    site = f"{program.prefix}/lib/python{step.python}/site-packages/"
    before = tuple(int(part) for part in step.python.split(".")) < (3, 12)
    return before and not any(path.startswith(f"{site}setuptools-") for path in step.tree)


def _leave(prefix: Path, version: str) -> None:
    """Remove what makes a folder an environment on this machine."""
    for name in ("pyvenv.cfg", ".gitignore", ".lock", "CACHEDIR.TAG"):
        (prefix / name).unlink(missing_ok=True)
    links = [prefix / "lib64", prefix / "lib" / _OWN, *(prefix / "bin").glob("python*")]
    for path in (path for path in links if path.is_symlink()):
        path.unlink()
    for pattern in ("activate*", "deactivate*", "pydoc.bat"):
        for path in (prefix / "bin").glob(pattern):
            path.unlink()
    if f"python{version}" != _OWN and (prefix / "lib" / _OWN).is_dir():
        shutil.copytree(prefix / "lib" / _OWN, prefix / f"lib/python{version}", dirs_exist_ok=True)
        shutil.rmtree(prefix / "lib" / _OWN)


def _own_variables(step: Run) -> dict[str, str]:
    """Return the stage's variables that the program gets; not a commit, which pip does not need."""
    if step.program.name in _NODE:
        return {k: v for k, v in step.variables.items() if k not in ("PATH", "HOME")}
    return {k: v for k, v in step.variables.items() if k.startswith(("PIP_", "UV_"))}


def _environment(step: Run, root: Path) -> dict[str, str]:
    passed = {k: v for k, v in os.environ.items() if _PASSED_ON.fullmatch(k)}
    passed = {k: v for k, v in (passed | _own_variables(step)).items() if k not in _HELD_BACK}
    return passed | {
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(trees.FIXED_TIME),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "UV_LINK_MODE": "copy",
        "UV_PYTHON": _INTERPRETER,
        "UV_PYTHON_DOWNLOADS": "never",
        **{name: value.replace("{root}", str(root)) for name, value in step.program.environment},
    }


def _words(step: Run, root: Path, workdir: Path) -> list[str]:
    """Return the command line, with paths of this machine."""
    program = step.program
    words: list[str] = []
    for word in program.argv[1:]:
        word = word.replace("{root}", str(root))
        found = sorted(glob.glob(word, root_dir=workdir)) if "*" in word else []  # `/wheels/*`
        words += found or [word]
    if program.name == "pip":
        python = ["--python", f"{root}/{program.prefix}/bin/python3"] if program.prefix else []
        later = ["--no-compile"] if "install" in words and "--no-compile" not in words else []
        return [sys.executable, "-m", "pip", *python, *words, *later]
    if program.name == "poetry":
        # A script of the stage's own names an interpreter that is not there while this runs.
        site = dict(program.environment)["PYTHONPATH"].replace("{root}", str(root))
        if os.path.isdir(f"{site}/poetry"):
            return [_INTERPRETER, "-m", "poetry", *words]
    place = f"{root}/usr/local/bin:{os.environ.get('PATH', '')}"
    executable = shutil.which(program.name, path=place)
    if executable is None:
        instead = "" if program.name in _NODE else f"RUN pip install {program.name}, before this"
        raise step.instruction.error(f"{program.name} is not installed on this machine", instead)
    return [executable, *words]


def _call(step: Run, root: Path, workdir: Path, ending: Ending) -> None:
    environment = _environment(step, root)
    if step.program.name in _NODE:
        # Packages' scripts find nothing in HOME. npm itself still reads the user's registries.
        home = environment.get("HOME", "")
        (root.parent / "home").mkdir()
        environment = {
            "npm_config_userconfig": f"{home}/.npmrc",
            "npm_config_cache": f"{home}/.npm",
            "npm_config_update_notifier": "false",
            "npm_config_fund": "false",
            "npm_config_audit": "false",
            **environment,
            "HOME": str(root.parent / "home"),
        }
    process = subprocess.Popen(
        _words(step, root, workdir),
        cwd=workdir,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )

    def end() -> None:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGTERM)  # and the programs that it started

    with ending(end), process:
        output, _ = process.communicate()
    if process.returncode:
        name = step.program.name
        error = step.instruction.error(f"{name} failed with exit code {process.returncode}")
        raise Failed(error.message, evidence=output.splitlines()[-_LINES:])


def _keep_new(root: Path, known: set[str], folder: Path, step: Run) -> None:
    """Move the files that the program added or changed to `folder/files`, and list them."""
    listed = []
    _make_portable(root, known, step)
    paths = sorted(root.rglob("*"))
    for path in paths:
        name = path.relative_to(root).as_posix()
        old = step.tree.get(name) or step.mounted.get(name)
        if path.is_symlink():
            if old is None or old.identity != os.readlink(path):
                listed.append([name, "link", 0o777, os.readlink(path)])
            continue
        if path.is_dir():
            if str(path) not in known or (old is not None and old.kind != "folder"):
                listed.append([name, "folder", 0o755, ""])
            continue
        source = old.source if old and old.kind == "file" else None
        if source and filecmp.cmp(path, source, shallow=False):
            continue
        executable = path.stat().st_mode & 0o111
        listed.append([name, "file", 0o755 if executable else 0o644, ""])
        kept = folder / "files" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
    there = {path.relative_to(root).as_posix() for path in paths}
    listed += [[name, "gone", 0, ""] for name in sorted(step.tree.keys() - there)]
    (folder / "index.json").write_text(json.dumps({"owner": step.owner, "entries": listed}))


def _make_portable(root: Path, known: set[str], step: Run) -> None:
    """Remove this machine's paths from the files that pip wrote, and correct its records.

    These are in the first line of scripts, and in the address of a package from a folder.
    """
    changed = set()
    pythons = [os.fsencode(sys.executable), os.fsencode(_INTERPRETER)]
    if step.program.prefix is not None:
        pythons.append(os.fsencode(f"{root}/{step.program.prefix}/bin/python"))
    for folder, _, names in os.walk(root):
        in_bin = os.path.basename(folder) == "bin"
        for path in (Path(folder, name) for name in names if in_bin or name in _OF_THIS_MACHINE):
            if path.is_symlink() or str(path) in known:
                continue
            if path.name == "uv_cache.json":  # the time at which uv built it
                path.unlink()
                changed.add(path)
                continue
            old = path.read_bytes()
            new = old.replace(os.fsencode(str(root)), b"") if not in_bin else old
            first = _FIRST_LINE.match(new)
            if first and any(python in first[0] for python in pythons):
                new = b"#!/usr/bin/env python3\n" + new[first.end() :]
            if new != old:
                path.write_bytes(new)
                changed.add(path)
    for record in root.rglob("*.dist-info/RECORD") if changed else ():
        _correct(record, changed)


def _correct(record: Path, changed: set[Path]) -> None:
    """Correct the lines of a package's RECORD about files that were changed or removed."""
    lines = []
    for line in record.read_text(encoding="utf-8").splitlines(keepends=True):
        name = line.partition(",")[0].strip('"')
        path = Path(os.path.normpath(record.parent.parent / name))
        if path in changed and not path.exists():
            continue
        if path in changed:
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
            line = f"{name},sha256={digest.decode().rstrip('=')},{path.stat().st_size}\n"
        lines.append(line)
    record.write_text("".join(lines), encoding="utf-8")


def _read(result: Path, key: str) -> Tree:
    known = json.loads((result / "index.json").read_bytes())
    uid, gid = known["owner"]
    return {
        name: trees.GONE
        if kind == "gone"
        else Entry(
            kind,
            mode,
            target or f"run:{key}:{name}",
            result / "files" / name if kind == "file" else None,
            uid,
            gid,
        )
        for name, kind, mode, target in known["entries"]
    }
