"""RUN without an operating system: pip, `rm -rf` and `compileall`.

pip runs on this machine, with this Python, in a copy of the stage's files. Its output is cached by
everything that it depends on. `rm -rf` and `python -m compileall` of the base image's files do
nothing, because those files do not exist.
"""

from __future__ import annotations

import filecmp
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.errors import Failed
from scripts.image.packing import layer as layers
from scripts.image.packing import shellwords
from scripts.image.packing import tree as trees
from scripts.image.packing.dockerfile import Instruction
from scripts.image.packing.layer import Progress
from scripts.image.packing.tree import Entry, Tree

_NO_SYSTEM = "the pack builder has no operating system to run this in; build with --builder docker"
_NO_TARGET = (
    "without --target=/folder, pip installs into the base image, which the pack builder does not "
    "have; add --target and COPY that folder, or build with --builder docker"
)
_PIP = re.compile(r"pip3?|(?:python3?) -m pip")
_OPERATORS = re.compile(r"[;|&<>()`]|\$\(")
# The variables of this machine that pip gets: paths, credentials, certificates, proxies.
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TMPDIR|TEMP|TMP|SYSTEMROOT|XDG_.*|PIP_.*|NETRC"
    r"|(?:https?|all|no|ftp)_proxy|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE",
    re.IGNORECASE,
)
# These would make pip write its files elsewhere.
_HELD_BACK = frozenset({"PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_DRY_RUN"})
_PIP_LINES = 15  # of its output, shown when it fails


@dataclass(frozen=True)
class Run:
    """One RUN, and everything that it depends on.

    Attributes:
        tree: the stage's files before it.
        mounted: the files that `--mount=type=bind` adds while it runs.
        variables: the stage's ENV and ARG.
        owner: uid and gid of the files that it writes.
    """

    instruction: Instruction
    tree: Tree
    mounted: Tree
    variables: Mapping[str, str]
    workdir: str
    owner: tuple[int, int]
    platform: str


def run(step: Run, cache: Path, progress: Progress, host_platform: str) -> Tree:
    """Return the files that a RUN of pip adds or changes, from the cache if it ran before.

    Raises:
        DockerfileError: it is another command, or the platform is not `host_platform`.
        Failed: pip fails; its last lines are the evidence.
    """
    commands = [
        _pip_arguments(command, step)
        for command in _commands(step)
        if not _removes_from_the_base_image(command, step) and not _compiles(command)
    ]
    if not commands:
        return {}
    if step.platform != host_platform:
        raise step.instruction.error(
            f"the pack builder installs for this machine, {host_platform}, not for "
            f"{step.platform}; build with --builder docker"
        )
    key = layers.key_of(
        "run",
        step.instruction.text,
        layers.listed(step.tree),
        layers.listed(step.mounted),
        sorted(step.variables.items()),
        [step.workdir, step.owner, step.platform, platform.python_version()],
    )
    result = cache / "runs" / key
    index = result / "index.json"
    if not index.is_file():
        progress(f"{step.instruction.text} (once; kept until a dependency changes)")
        result.parent.mkdir(parents=True, exist_ok=True)
        with layers.scratch(cache) as folder:
            _install(step, commands, folder / "run")
            try:
                (folder / "run").rename(result)
            except OSError:
                if not index.is_file():  # otherwise another build was faster: use its result
                    raise
    return _read(result, key)


def _commands(step: Run) -> list[list[str]]:
    """Return the commands of a RUN that are joined with `&&`, as words."""
    instruction = step.instruction
    exec_form = instruction.exec_form()
    if exec_form is not None:
        return [exec_form]
    commands: list[list[str]] = [[]]
    for word in instruction.raw_words():
        if word == "&&":
            commands.append([])
            continue
        if _OPERATORS.search(re.sub(r"'[^']*'|\"(?:\\.|[^\"$`])*\"", "", word)):
            raise instruction.error(_NO_SYSTEM)
        commands[-1].append(shellwords.expand(word, step.variables))
    return commands


def _removes_from_the_base_image(command: list[str], step: Run) -> bool:
    """Return whether a command is an `rm -rf` of files that are not the stage's own.

    Raises:
        DockerfileError: it names the stage's own files, which a layer cannot remove.
    """
    if command[:2] != ["rm", "-rf"]:
        return False
    for word in command[2:]:
        path = trees.inside(word, step.workdir)
        if trees.matching(step.tree, path) or any(trees.below(step.tree, path)):
            raise step.instruction.error(
                f"the pack builder cannot remove {word}; leave it out of COPY, or build "
                "with --builder docker"
            )
    return True


def _compiles(command: list[str]) -> bool:
    """Return whether a command compiles Python files: it only makes the start faster."""
    return command[:1] in (["python"], ["python3"]) and command[1:3] == ["-m", "compileall"]


def _pip_arguments(command: list[str], step: Run) -> list[str]:
    """Return pip's arguments, with a placeholder for the root in each absolute path."""
    match command:
        case [pip, "install", *arguments] if _PIP.fullmatch(pip):
            pass
        case [python, "-m", "pip", "install", *arguments] if _PIP.fullmatch(f"{python} -m pip"):
            pass
        case _:
            raise step.instruction.error(_NO_SYSTEM)
    mapped: list[str] = []
    targets = 0
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option in ("--prefix", "--root", "--user"):
            raise step.instruction.error(_NO_TARGET)
        if option == "--no-cache-dir":  # keeps layers small; the cache here is the machine's own
            continue
        if option == "--cache-dir":
            _ = value if equals else next(words, "")
            continue
        if option in ("-t", "--target"):
            value = value if equals else next(words, "")
            mapped.append(f"--target={{root}}/{trees.inside(value, step.workdir)}")
            targets += 1
        elif equals and value.startswith("/"):
            mapped.append(f"{option}={{root}}{value}")
        else:
            mapped.append(f"{{root}}{word}" if word.startswith("/") else word)
    if not targets:
        raise step.instruction.error(_NO_TARGET)
    return mapped


def _install(step: Run, commands: list[list[str]], folder: Path) -> None:
    """Run pip; write the new files to `files/` in `folder`, and their list to `index.json`."""
    root = folder / "root"
    before = folder / "before"
    trees.write_out(step.tree.items(), root)
    trees.write_out(step.mounted.items(), root)
    workdir = root / step.workdir.strip("/")
    workdir.mkdir(parents=True, exist_ok=True)
    shutil.copytree(root, before, symlinks=True)
    compiled = []
    for arguments in commands:
        words = [word.replace("{root}", str(root)) for word in arguments]
        if "--no-compile" not in words:
            compiled += [word[len("--target=") :] for word in words if word.startswith("--target=")]
            words.append("--no-compile")
        _call(step, ["-m", "pip", "install", *words], workdir)
    if compiled:
        # Not with pip, which compiles under a random path and writes that path into every file.
        # Hash-checked files, because the images' times say nothing about the source's.
        options = ["-q", "-s", str(root), "-p", "/", "--invalidation-mode", "checked-hash"]
        _call(step, ["-m", "compileall", *options, *compiled], workdir, may_fail=True)
    _keep_new(root, before, folder, step)
    shutil.rmtree(root)
    shutil.rmtree(before)


def _call(step: Run, arguments: list[str], workdir: Path, *, may_fail: bool = False) -> None:
    passed = {k: v for k, v in os.environ.items() if _PASSED_ON.fullmatch(k)}
    passed |= {k: v for k, v in step.variables.items() if k.startswith("PIP_")}
    environment = {k: v for k, v in passed.items() if k not in _HELD_BACK} | {
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(trees.FIXED_TIME),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=workdir,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode and not may_fail:  # compileall fails on files meant for another Python
        error = step.instruction.error(f"pip failed with exit code {done.returncode}")
        raise Failed(error.message, evidence=done.stdout.splitlines()[-_PIP_LINES:])


def _keep_new(root: Path, before: Path, folder: Path, step: Run) -> None:
    """Move the files that pip added or changed to `folder/files`, and list them."""
    listed = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        old = before / name
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder:
            if not old.is_dir():
                listed.append([name, "folder", 0o755, ""])
            continue
        if path.is_symlink():
            listed.append([name, "link", 0o777, os.readlink(path)])
            continue
        if old.is_file() and filecmp.cmp(path, old, shallow=False):
            continue
        _make_portable(path, root)
        executable = path.stat().st_mode & 0o111
        listed.append([name, "file", 0o755 if executable else 0o644, ""])
        kept = folder / "files" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
    (folder / "index.json").write_text(json.dumps({"owner": step.owner, "entries": listed}))


def _make_portable(path: Path, root: Path) -> None:
    """Remove this machine's paths from pip's files: the first line of scripts."""
    if path.parent.name != "bin":
        return
    contents = path.read_bytes()
    first, newline, rest = contents.partition(b"\n")
    if first.startswith(b"#!") and os.fsencode(sys.executable) in first:
        path.write_bytes(b"#!/usr/bin/env python3" + newline + rest)


def _read(result: Path, key: str) -> Tree:
    known = json.loads((result / "index.json").read_bytes())
    uid, gid = known["owner"]
    return {
        name: Entry(
            kind,
            mode,
            target or f"run:{key}:{name}",
            result / "files" / name if kind == "file" else None,
            uid,
            gid,
        )
        for name, kind, mode, target in known["entries"]
    }
