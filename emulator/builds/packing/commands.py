"""The commands of a RUN: those that have an effect here, and those that are left out.

A RUN is read as commands that are joined with `&&` or `;`. Those that only change files (`mkdir`,
`chmod`, `rm`, …) change the tree at once. Those that install packages become `Program`s, which
`pip.py` runs. All others are refused, because there is no operating system to run them in.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from emulator.builds.packing import pip_words, run_syntax
from emulator.builds.packing import tree as trees
from emulator.builds.packing.dockerfile import DockerfileError, Instruction
from emulator.builds.packing.findings import Note, Problem
from emulator.builds.packing.program import NO_SYSTEM, Program, Refused
from emulator.builds.packing.tree import Tree
from emulator.builds.packing.users import Users

_ELSEWHERE = "COPY of its result, which you make before the commit"
_DOWNLOAD = "COPY of the file, which you download once and commit"
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_PYTHON = re.compile(r"(?P<folder>/\S+/bin/)?python(3(\.\d+)?)?")
_PIP = re.compile(r"(?P<folder>/\S+/bin/)?pip(3(\.\d+)?)?")

# What has no effect on a packed image: systems' packages, owners, shells' settings.
_SYSTEM_PACKAGES = frozenset({"apt", "apt-get", "apk", "dnf", "microdnf", "yum", "dpkg", "tdnf"})
_WITHOUT_EFFECT = frozenset(
    {":", "true", "echo", "printf", "set", "chown", "chgrp", "ldconfig", "apt-mark", "sync", "ls",
     "pwd", "corepack", "update-ca-certificates", "hash", "id", "deactivate", "usermod"}
)  # fmt: skip
_DOWNLOADS = frozenset({"curl", "wget", "git"})


@dataclass
class Shell:
    """The state of a RUN between its commands.

    Attributes:
        tree: the stage's files, which commands change.
        variables: ENV and ARG.
        folder: the working directory.
        python: the version in the names of the base image's folders, such as "3.12".
        home: the user's.
        run: runs a program, and changes the tree.
        note: called with what is left out.
    """

    instruction: Instruction
    tree: Tree
    variables: dict[str, str]
    folder: str
    python: str
    home: str
    users: Users
    run: Callable[[Program], None]
    note: Callable[[Note], None]

    def execute(self) -> None:
        """Execute the instruction's commands.

        Raises:
            DockerfileError: a command cannot be executed.
        """
        for text, words in run_syntax.commands(self.instruction, self.variables):
            try:
                self._command(text, words)
            except Refused as refused:
                quoted = f"RUN {text}"
                raise DockerfileError(
                    Problem(
                        self.instruction.file,
                        self.instruction.line,
                        quoted if len(quoted) <= 60 else f"{quoted[:59].rstrip()}…",
                        refused.reason,
                        refused.instead,
                    )
                ) from None

    def _command(self, text: str, words: list[str]) -> None:
        while words and (_ASSIGNMENT.fullmatch(words[0]) or words[0] in ("export", "sudo")):
            variable, equals, value = words.pop(0).partition("=")
            if equals:
                self.variables[variable] = value
        if not words:
            return
        name, *rest = words
        if name == "cd":
            self.folder = f"/{trees.inside(rest[0] if rest else self.home, self.folder)}"
        elif name in (".", "source") and rest and rest[0].endswith("/bin/activate"):
            bin_folder = posixpath.dirname(trees.inside(rest[0], self.folder))
            self.variables["PATH"] = f"/{bin_folder}:{self.variables.get('PATH', '')}"
        elif posixpath.basename(name) in _SYSTEM_PACKAGES:
            self._system_packages(text, rest)
        elif name in _WITHOUT_EFFECT:
            pass
        elif name in ("mkdir", "rmdir", "rm", "chmod", "ln", "touch", "cp", "mv"):
            flags, names = run_syntax.options(rest)
            if not names and not (name == "rm" and "f" in flags):
                raise Refused("a name is missing", "")
            getattr(self, f"_{name}")(flags, names)
        elif name in ("useradd", "adduser", "groupadd", "addgroup"):
            self.users.execute(name, rest)
        elif match := _PIP.fullmatch(name):
            self._pip(text, rest, match["folder"])
        elif match := _PYTHON.fullmatch(name):
            self._python(text, rest, match["folder"])
        elif name == "virtualenv":
            self._environment(rest)
        elif name == "uv":
            self._uv(text, rest)
        elif posixpath.basename(name) == "poetry":
            self._poetry(text, rest, posixpath.dirname(name))
        elif name in ("npm", "yarn", "pnpm"):
            self._npm(text, words)
        elif name in _DOWNLOADS:
            raise Refused(NO_SYSTEM, _DOWNLOAD)
        else:
            raise Refused(NO_SYSTEM, _ELSEWHERE)

    def _left_out(self, text: str, reason: str) -> None:
        self.note(self.instruction.note(f"left out: {reason}", text))

    def _system_packages(self, text: str, rest: list[str]) -> None:
        words = [word for word in rest if not word.startswith("-")]
        if words[:1] in (["install"], ["add"]):
            self._left_out(text, "this machine's own is used")

    # Files

    def _mkdir(self, _flags: str, names: list[str]) -> None:
        for name in names:
            if path := trees.inside(name, self.folder):
                trees.add(self.tree, path, trees.FOLDER)

    def _rmdir(self, _flags: str, names: list[str]) -> None:
        self._rm("f", names)

    def _rm(self, _flags: str, names: list[str]) -> None:
        """Remove the stage's own files. Those of the base image do not exist here."""
        for name in names:
            for path in self._found(name):
                trees.remove(self.tree, path)

    def _chmod(self, flags: str, names: list[str]) -> None:
        mode, *paths = names
        _new_mode(0, mode)  # refuses a mode that is none, also where no file gets it
        for path in (found for name in paths for found in self._found(name)):
            inner = [f"{path}/{n}" for n, _ in trees.below(self.tree, path)] if "R" in flags else []
            for changed in [path, *inner]:
                entry = self.tree[changed]
                if entry.kind != "link":
                    self.tree[changed] = replace(entry, mode=_new_mode(entry.mode, mode))

    def _ln(self, flags: str, names: list[str]) -> None:
        if "s" not in flags or len(names) != 2:
            raise Refused("only `ln -s TARGET NAME` is known", "")
        target, name = names
        path = trees.inside(name, self.folder)
        if path in self.tree and self.tree[path].kind == "folder":
            path = f"{path}/{posixpath.basename(target)}"
        trees.add(self.tree, path, trees.Entry("link", 0o777, target))

    def _touch(self, _flags: str, names: list[str]) -> None:
        for name in names:
            path = trees.inside(name, self.folder)
            if path not in self.tree:
                trees.add(self.tree, path, trees.EMPTY)

    def _cp(self, _flags: str, names: list[str]) -> None:
        *sources, target = names
        place = trees.followed(self.tree, trees.inside(target, self.folder))
        there = self.tree.get(place)
        for path in [found for name in sources for found in self._existing(name)]:
            into = there is not None and there.kind == "folder"
            end = f"{place}/{posixpath.basename(path)}" if into else place
            copied = {end: self.tree[path]} | {
                f"{end}/{name}": entry for name, entry in trees.below(self.tree, path)
            }
            for new, entry in copied.items():
                trees.add(self.tree, new, entry)

    def _mv(self, flags: str, names: list[str]) -> None:
        self._cp(flags, names)
        self._rm("rf", names[:-1])

    def _found(self, name: str) -> list[str]:
        path = trees.inside(name, self.folder)
        return trees.matching(self.tree, path) if path else list(self.tree)

    def _existing(self, name: str) -> list[str]:
        if found := self._found(name):
            return found
        raise Refused(f"{name} does not exist here, where there is no base image", "")

    # Python

    def _python(self, text: str, rest: list[str], folder: str | None) -> None:
        match rest:
            case ["-m", "pip", *arguments]:
                self._pip(text, arguments, folder)
            case ["-m", "compileall", *_] | ["--version" | "-V"]:
                pass  # it would only make the start faster
            case ["-m", "venv" | "virtualenv", *arguments]:
                self._environment(arguments)
            case _:
                raise Refused(NO_SYSTEM, _ELSEWHERE)

    def _environment(self, arguments: list[str]) -> None:
        """Make the folders of a virtual environment; the interpreter is this machine's."""
        for name in [word for word in arguments if not word.startswith("-")][-1:]:
            path = trees.inside(name, self.folder)
            trees.add(self.tree, f"{path}/bin", trees.FOLDER)
            trees.add(self.tree, f"{path}/{self._site}", trees.FOLDER)

    @property
    def _site(self) -> str:
        return f"lib/python{self.python}/site-packages"

    def _prefix(self, folder: str | None) -> str:
        """Return the environment of pip: of its own folder, or the first one on PATH."""
        places = [folder] if folder else []
        for place in [*places, *self.variables.get("PATH", "").split(":")]:
            prefix = trees.inside(posixpath.dirname(place.rstrip("/")), "/")
            if f"{prefix}/{self._site}" in self.tree:
                return prefix
        return "usr/local"

    def _pip(self, text: str, rest: list[str], folder: str | None) -> None:
        leading = []
        while rest and rest[0].startswith("-"):
            if rest[0] not in ("--no-cache-dir", "--version", "-V"):
                leading.append(rest[0])
            rest = rest[1:]
        match rest:
            case ["install", *arguments]:
                self._pip_install(text, leading, arguments, folder)
            case ["uninstall", *arguments]:
                prefix = self._prefix(folder)
                words = [word for word in arguments if not pip_words.PIP_ITSELF.fullmatch(word)]
                if [word for word in words if not word.startswith("-")]:
                    argv = ("pip", *leading, "uninstall", *{"--yes": 0, **dict.fromkeys(words)})
                    makes = (f"{prefix}/{self._site}",)
                    self.run(Program(argv, self.folder, prefix, makes, (), (), text))
            case ["wheel" | "download", *arguments]:
                argv = ("pip", *leading, rest[0], *(pip_words.in_root(word) for word in arguments))
                folders = tuple(
                    trees.inside(value, self.folder)
                    for option, value in pip_words.with_values(arguments)
                    if option in ("-w", "--wheel-dir", "-d", "--dest")
                )
                folders = folders or (self.folder.strip("/"),)
                self.run(Program(argv, self.folder, None, folders, None, (), text))
            case [] | ["cache" | "check" | "config" | "debug" | "freeze" | "list" | "show", *_]:
                pass
            case _:
                raise Refused(NO_SYSTEM, "")

    def _pip_install(
        self, text: str, leading: list[str], arguments: list[str], folder: str | None = None
    ) -> None:
        program = pip_words.install(
            text,
            leading,
            arguments,
            prefix=self._prefix(folder),
            site=self._site,
            folder=self.folder,
            home=self.home,
        )
        if program:
            self.run(program)

    def _uv(self, text: str, rest: list[str]) -> None:
        rest = [word for word in rest if word not in ("--no-cache", "--quiet", "-q")]
        match rest:
            case ["pip", "install" | "sync" as verb, *arguments] if _needs_uv(verb, arguments):
                prefix = self._prefix(None)
                words = [pip_words.in_root(word) for word in arguments if word != "--system"]
                python = f"{{root}}/{prefix}/bin/python3"
                argv = ("uv", "pip", verb, "--python", python, *words)
                makes = (f"{prefix}/{self._site}", f"{prefix}/bin")
                self.run(Program(argv, self.folder, prefix, makes, None, (), text))
            case ["export", *arguments]:
                argv = ("uv", "export", *(pip_words.in_root(word) for word in arguments))
                self.run(Program(argv, self.folder, None, (), None, (), text))
            case ["pip", "install", *arguments]:
                left_out = ("--system", "--compile-bytecode", "--frozen", "--no-build-isolation")
                words = [word for word in arguments if word not in left_out]
                self._pip_install(text, [], words)
            case ["venv", *arguments]:
                self._environment(arguments or [".venv"])
            case ["sync", *arguments]:
                prefix = trees.inside(
                    self.variables.get("UV_PROJECT_ENVIRONMENT", ".venv"), self.folder
                )
                argv = ("uv", "sync", "--no-editable", *arguments)
                makes = (f"{prefix}/{self._site}", f"{prefix}/bin")
                environment = (("UV_PROJECT_ENVIRONMENT", f"{{root}}/{prefix}"),)
                self.run(Program(argv, self.folder, prefix, makes, None, environment, text))
            case ["cache", *_] | ["--version"] | ["python", "install", *_]:
                pass
            case _:
                raise Refused(NO_SYSTEM, "uv sync or uv pip install")

    def _poetry(self, text: str, rest: list[str], folder: str) -> None:
        """Install into the environment that the image has, as with `virtualenvs.create false`.

        Otherwise Poetry makes an environment of its own, which only `poetry run` finds.
        """
        while rest and rest[0] in ("--no-interaction", "-n", "--no-ansi", "--quiet", "-q"):
            rest = rest[1:]
        match rest:
            case ["install", *arguments]:
                prefix = self._prefix(None)
                if own := self.variables.get("VIRTUAL_ENV"):
                    prefix = trees.inside(own, self.folder)
                elif self.variables.get("POETRY_VIRTUALENVS_IN_PROJECT", "") in ("1", "true"):
                    prefix = trees.inside(".venv", self.folder)
                places = [folder, *self.variables.get("PATH", "").split(":")]
                sites = [
                    f"{trees.inside(posixpath.dirname(place), '/')}/{self._site}"
                    for place in places
                    if place
                ]
                site = next((s for s in sites if f"{s}/poetry" in self.tree), sites[0])
                argv = ("poetry", "install", "--no-interaction", *arguments)
                environment = (
                    ("VIRTUAL_ENV", f"{{root}}/{prefix}"),
                    ("POETRY_VIRTUALENVS_CREATE", "false"),
                    ("PYTHONPATH", f"{{root}}/{site}"),
                )
                makes = (f"{prefix}/{self._site}", f"{prefix}/bin")
                self.run(Program(argv, self.folder, prefix, makes, None, environment, text))
            case ["config", "virtualenvs.in-project", *_]:
                raise Refused(
                    "what it writes is in no later step", "ENV POETRY_VIRTUALENVS_IN_PROJECT=1"
                )
            case ["cache" | "check" | "config" | "--version", *_]:
                pass
            case _:
                raise Refused(NO_SYSTEM, "poetry install --only main --no-root")

    # Node

    def _npm(self, text: str, words: list[str]) -> None:
        program, *rest = words
        command = next((word for word in rest if not word.startswith("-")), "install")
        if command in ("cache", "config", "set", "audit", "version", "store"):
            return
        if command not in ("ci", "install", "i", "add", "run", "run-script", "build", "prune",
                           "rebuild", "dedupe"):  # fmt: skip
            raise Refused(NO_SYSTEM, _ELSEWHERE)
        folder = self.folder.strip("/")
        makes: tuple[str, ...] = (f"{folder}/node_modules".strip("/"),)
        if {"-g", "--global"} & {*rest}:
            if command not in ("install", "i") or program != "npm":
                raise Refused(NO_SYSTEM, "npm install, without --global")
            names = [w for w in rest if not w.startswith("-") and w != command]
            if all(re.fullmatch(r"(npm|yarn|pnpm|corepack)(@.*)?", name) for name in names):
                self._left_out(text, "this machine's own is used")
                return
            words = [*words, "--prefix={root}/usr/local"]
            makes = ("usr/local/lib/node_modules", "usr/local/bin")
        elif command in ("run", "run-script", "build"):
            makes = (folder,)
        self.run(Program(tuple(words), self.folder, None, makes, None, (), text))


def _new_mode(old: int, asked: str) -> int:
    """Return the mode after a chmod, with an octal or a symbolic mode such as `u+x,go-w`."""
    if re.fullmatch(r"[0-7]{3,4}", asked):
        return int(asked, 8) & 0o777
    mode = old
    for part in asked.split(","):
        match = re.fullmatch(r"([ugoa]*)([-+=])([rwxX]*)", part)
        if match is None:
            raise Refused(f"{asked} is not a mode", "an octal number such as 0755")
        bits = sum({"r": 4, "w": 2, "x": 1, "X": 1}[letter] for letter in {*match[3]})
        for who, shift in (("u", 6), ("g", 3), ("o", 0)):
            if not match[1] or who in match[1] or "a" in match[1]:
                kept = mode & ~(7 << shift)
                there = (mode >> shift) & 7
                new = {"+": there | bits, "-": there & ~bits, "=": bits}[match[2]]
                mode = kept | new << shift
    return mode


def _needs_uv(verb: str, arguments: list[str]) -> bool:
    """Return whether a `uv pip` does more than pip: sync, a project's dependencies, groups.

    Source: https://docs.astral.sh/uv/pip/packages/#installing-packages-from-files
    """
    options = ("--extra", "--all-extras", "--group")
    return verb == "sync" or any(
        word.endswith((".toml", "setup.py", "setup.cfg")) or word.partition("=")[0] in options
        for word in arguments
    )
