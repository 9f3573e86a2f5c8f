"""The commands of a RUN: those that have an effect here, and those that are left out.

A RUN is read as commands that are joined with `&&` or `;`. Those that only change files (`mkdir`,
`chmod`, `rm`, …) change the tree at once. Those that install packages become `Program`s, which
`pip.py` runs. All others are refused, because there is no operating system to run them in.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from scripts.image.packing import shellwords
from scripts.image.packing import tree as trees
from scripts.image.packing.dockerfile import DockerfileError, Instruction
from scripts.image.packing.findings import Note, Problem
from scripts.image.packing.tree import Tree

_NO_SYSTEM = "there is no operating system to run this in"
_ELSEWHERE = "COPY of its result, which you make before the commit"
_DOWNLOAD = "COPY of the file, which you download once and commit"
_OPERATORS = re.compile(r"[;|&<>()`]|\$\(")
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"$`])*\"")
_REDIRECTION = re.compile(r"[12]?>>?(/dev/null|&[12])|&>/dev/null")
_WITHOUT_RESULT = [["||", "true"], ["||", ":"]] + [
    [operator, "/dev/null"] for operator in (">", "1>", "2>", "&>")
]
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_PIP_ITSELF = re.compile(r"pip(\[.*)?([=<>!~ ].*)?")
_OF_AN_INDEX = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w,. -]*\])?\s*([=<>!~;@ ].*)?")
_PYTHON = re.compile(r"(?P<folder>/\S+/bin/)?python(3(\.\d+)?)?")
_PIP = re.compile(r"(?P<folder>/\S+/bin/)?pip(3(\.\d+)?)?")

# What has no effect on a packed image: systems' packages, owners, shells' settings.
_SYSTEM_PACKAGES = frozenset({"apt", "apt-get", "apk", "dnf", "microdnf", "yum", "dpkg", "tdnf"})
_WITHOUT_EFFECT = frozenset(
    {":", "true", "echo", "printf", "set", "chown", "chgrp", "ldconfig", "apt-mark", "sync", "ls",
     "pwd", "corepack", "update-ca-certificates", "hash", "id", "deactivate"}
)  # fmt: skip
_DOWNLOADS = frozenset({"curl", "wget", "git"})
# The options of useradd and its like that a value follows.
_USERS_VALUES = frozenset(
    {"-u", "--uid", "-g", "--gid", "-G", "--groups", "-s", "--shell", "-d", "--home", "--home-dir",
     "-h", "-c", "--comment", "--gecos", "--ingroup", "-b", "-k"}
)  # fmt: skip
# The options of pip that a value follows.
_WITH_VALUE = frozenset(
    {"-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f",
     "--find-links", "--trusted-host", "--timeout", "--default-timeout", "--retries", "--platform",
     "--python-version", "--implementation", "--abi", "--only-binary", "--no-binary", "--proxy",
     "--progress-bar", "--cert", "--client-cert", "-w", "--wheel-dir", "-d", "--dest", "--log",
     "--upgrade-strategy", "-t", "--target", "--prefix", "--root", "-e", "--editable", "--src",
     "--cache-dir", "--root-user-action", "--python", "-C", "--config-settings", "--use-feature",
     "--global-option"}
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A program of this machine that installs packages into the stage's files.

    Attributes:
        argv: its words, with `{root}` for the folder that stands for the image's root.
        prefix: the folder of the Python environment to install into, such as `usr/local`.
        makes: the folders that it fills.
        reads: the files that its result depends on; None for all.
        environment: variables that it gets, with `{root}` as in `argv`.
        text: as the Dockerfile has it.
    """

    argv: tuple[str, ...]
    folder: str
    prefix: str | None = None
    makes: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    text: str = ""

    @property
    def name(self) -> str:
        """The program: "pip", "npm", …"""
        return self.argv[0]


# Of Debian, and of the node image.
_KNOWN = {"root": 0, "daemon": 1, "bin": 2, "sys": 3, "www-data": 33, "node": 1000}


@dataclass
class Users:
    """The users and groups that a stage knows, by name, and the next number for a new one."""

    users: dict[str, int] = field(default_factory=lambda: {**_KNOWN, "nobody": 65534})
    groups: dict[str, int] = field(default_factory=lambda: {**_KNOWN, "nogroup": 65534})

    def copy(self) -> Users:
        """Return a copy that can be changed."""
        return Users(dict(self.users), dict(self.groups))


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
        for text, words in _commands(self.instruction, self.variables):
            try:
                self._command(text, words)
            except _Refused as refused:
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
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
        if words[:1] == ["sudo"]:
            words = words[1:]
        if not words:
            return
        name, *rest = words
        if name == "export":
            for assigned in rest:
                variable, equals, value = assigned.partition("=")
                if equals:
                    self.variables[variable] = value
        elif name == "cd":
            self.folder = f"/{trees.inside(rest[0] if rest else self.home, self.folder)}"
        elif name in (".", "source") and rest and rest[0].endswith("/bin/activate"):
            bin_folder = posixpath.dirname(trees.inside(rest[0], self.folder))
            self.variables["PATH"] = f"/{bin_folder}:{self.variables.get('PATH', '')}"
        elif posixpath.basename(name) in _SYSTEM_PACKAGES:
            self._system_packages(text, rest)
        elif name in _WITHOUT_EFFECT:
            pass
        elif name in ("mkdir", "rmdir", "rm", "chmod", "ln", "touch", "cp", "mv"):
            flags, names = _options(rest)
            if not names:
                raise _Refused("a name is missing", "")
            getattr(self, f"_{name}")(flags, names)
        elif name in ("useradd", "adduser", "groupadd", "addgroup", "usermod"):
            self._user(name, rest)
        elif match := _PIP.fullmatch(name):
            self._pip(text, rest, match["folder"])
        elif match := _PYTHON.fullmatch(name):
            self._python(text, rest, match["folder"])
        elif name == "virtualenv":
            self._environment(rest)
        elif name == "uv":
            self._uv(text, rest)
        elif name in ("npm", "yarn", "pnpm"):
            self._npm(text, words)
        elif name in _DOWNLOADS:
            raise _Refused(_NO_SYSTEM, _DOWNLOAD)
        else:
            raise _Refused(_NO_SYSTEM, _ELSEWHERE)

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
            raise _Refused("only `ln -s TARGET NAME` is known", "")
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
        raise _Refused(f"{name} does not exist here, where there is no base image", "")

    # Users: only COPY --chown asks for their numbers, and nothing for their rights

    def _user(self, name: str, rest: list[str]) -> None:
        if name == "usermod":
            return
        table = self.users.users if "user" in name else self.users.groups
        number, words = None, list(rest)
        names = []
        while words:
            word = words.pop(0)
            option, equals, value = word.partition("=")
            if option in _USERS_VALUES:
                value = value if equals else (words.pop(0) if words else "")
                own = ("-u", "--uid") if "user" in name else ("-g", "--gid")
                number = int(value) if option in own and value.isdigit() else number
            elif not word.startswith("-"):
                names.append(word)
        for new in names[-1:] if name == "useradd" else names[:1]:
            table.setdefault(new, number if number is not None else 1000 + len(table))
            if table is self.users.users:  # most systems make a group of the same name
                self.users.groups.setdefault(new, table[new])

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
                raise _Refused(_NO_SYSTEM, _ELSEWHERE)

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
                self._pip_install(text, leading, arguments, self._prefix(folder))
            case ["uninstall", *arguments]:
                prefix = self._prefix(folder)
                words = [word for word in arguments if not _PIP_ITSELF.fullmatch(word)]
                if [word for word in words if not word.startswith("-")]:
                    argv = ("pip", *leading, "uninstall", *{"--yes": 0, **dict.fromkeys(words)})
                    makes = (f"{prefix}/{self._site}",)
                    self.run(Program(argv, self.folder, prefix, makes, (), (), text))
            case ["wheel" | "download", *arguments]:
                argv = ("pip", *leading, rest[0], *(_in_root(word) for word in arguments))
                folders = tuple(
                    trees.inside(value, self.folder)
                    for option, value in _with_values(arguments)
                    if option in ("-w", "--wheel-dir", "-d", "--dest")
                )
                folders = folders or (self.folder.strip("/"),)
                self.run(Program(argv, self.folder, None, folders, None, (), text))
            case [] | ["cache" | "check" | "config" | "debug" | "freeze" | "list" | "show", *_]:
                pass
            case _:
                raise _Refused(_NO_SYSTEM, "")

    def _pip_install(
        self, text: str, leading: list[str], arguments: list[str], prefix: str | None
    ) -> None:
        words: list[str] = []
        reads: list[str] | None = []
        asks = False
        target = None
        for option, value in _with_values(arguments):
            match option:
                case "--root":
                    raise _Refused("--root has no meaning here", "--prefix or --target")
                case "-e" | "--editable":
                    raise _Refused(
                        "an editable package points at its source in the build",
                        text.replace(option, "").replace("  ", " "),
                    )
                case "--no-cache-dir" | "--cache-dir" | "--break-system-packages":
                    continue  # the cache is this machine's own, in no layer
                case "--root-user-action" | "--no-warn-script-location" | "--python":
                    continue
                case "--user":
                    prefix = trees.inside(f"{self.home}/.local", "/")
                case "--prefix":
                    prefix = trees.inside(value, self.folder)
                case "-t" | "--target":
                    target = trees.inside(value, self.folder)
                case "":
                    if target is None and _PIP_ITSELF.fullmatch(value):
                        continue
                    asks = True
                    words.append(_in_root(value))
                    if not _OF_AN_INDEX.fullmatch(value) or "/" in value.partition("@")[0]:
                        reads = None
                case "-r" | "--requirement" | "-c" | "--constraint":
                    asks = asks or option in ("-r", "--requirement")
                    words += [option, _in_root(value)]
                    if reads is not None and "://" not in value:
                        reads.append(trees.inside(value, self.folder))
                case _:
                    words += [option, _in_root(value)] if value else [option]
                    if option in ("-f", "--find-links") and "://" not in value:
                        reads = None
        if not asks:
            return
        makes: tuple[str, ...] = (target,) if target is not None else ()
        if target is not None:
            prefix = None
            words.insert(0, f"--target={{root}}/{target}")
        else:
            makes = (f"{prefix}/{self._site}", f"{prefix}/bin")
        argv = ("pip", *leading, "install", *words)
        files = None if reads is None else tuple(reads)
        self.run(Program(argv, self.folder, prefix, makes, files, (), text))

    def _uv(self, text: str, rest: list[str]) -> None:
        rest = [word for word in rest if word not in ("--no-cache", "--quiet", "-q")]
        match rest:
            case ["pip", "install", *arguments]:
                left_out = ("--system", "--compile-bytecode", "--frozen", "--no-build-isolation")
                words = [word for word in arguments if word not in left_out]
                self._pip_install(text, [], words, self._prefix(None))
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
                raise _Refused(_NO_SYSTEM, "uv sync or uv pip install")

    # Node

    def _npm(self, text: str, words: list[str]) -> None:
        program, *rest = words
        command = next((word for word in rest if not word.startswith("-")), "install")
        if command in ("cache", "config", "set", "audit", "version", "store"):
            return
        if command not in ("ci", "install", "i", "add", "run", "run-script", "build", "prune",
                           "rebuild", "dedupe"):  # fmt: skip
            raise _Refused(_NO_SYSTEM, _ELSEWHERE)
        folder = self.folder.strip("/")
        makes: tuple[str, ...] = (f"{folder}/node_modules".strip("/"),)
        if {"-g", "--global"} & {*rest}:
            if command not in ("install", "i") or program != "npm":
                raise _Refused(_NO_SYSTEM, "npm install, without --global")
            names = [w for w in rest if not w.startswith("-") and w != command]
            if all(re.fullmatch(r"(npm|yarn|pnpm|corepack)(@.*)?", name) for name in names):
                self._left_out(text, "this machine's own is used")
                return
            words = [*words, "--prefix={root}/usr/local"]
            makes = ("usr/local/lib/node_modules", "usr/local/bin")
        elif command in ("run", "run-script", "build"):
            makes = (folder,)
        self.run(Program(tuple(words), self.folder, None, makes, None, (), text))


class _Refused(Exception):
    def __init__(self, reason: str, instead: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead


def _commands(
    instruction: Instruction, variables: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of a RUN: each as it is written, and as words.

    Variables are replaced when a command's turn comes, because an earlier one may export some.
    """
    exec_form = instruction.exec_form()
    if exec_form is not None:
        yield " ".join(exec_form), exec_form
        return
    lines = [instruction.value]
    if instruction.documents:
        if not re.fullmatch(r"<<-?\s*[\"']?\w+[\"']?", instruction.value):
            raise instruction.error("only `RUN <<EOF` is known", "commands joined with &&")
        (document,) = instruction.documents
        joined = re.sub(r"\\\n", " ", "\n".join(document))
        lines = [line for line in joined.splitlines() if not re.match(r"\s*(#|$)", line)]
    for line in lines:
        for raw in _split(instruction, line):
            try:
                words = [shellwords.expand(word, variables) for word in raw]
            except ValueError as error:
                raise instruction.error(str(error)) from None
            yield " ".join(raw), words


def _split(instruction: Instruction, line: str) -> list[list[str]]:
    """Return the commands of a line as raw words."""
    commands: list[list[str]] = [[]]
    words = replace(instruction, value=line).raw_words()
    while words:
        word = words.pop(0)
        if words and [word, words[0].rstrip(";")] in _WITHOUT_RESULT:
            if words.pop(0).endswith(";"):
                commands.append([])
        elif word in ("&&", ";"):
            commands.append([])
        elif _REDIRECTION.fullmatch(word):
            continue
        elif word.endswith(";") and not _OPERATORS.search(_QUOTED.sub("", word[:-1])):
            commands[-1].append(word[:-1])
            commands.append([])
        elif _OPERATORS.search(_QUOTED.sub("", word)):
            raise instruction.error(_NO_SYSTEM, "commands joined with && alone")
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def _options(words: list[str]) -> tuple[str, list[str]]:
    """Return the letters of a command's options, and its other words."""
    flags = "".join(word[1:] for word in words if word.startswith("-") and word[1:2] != "-")
    flags += "R" if "--recursive" in words else ""
    names = [word for word in words if not word.startswith("-")]
    if flags.startswith("m") and names:  # `mkdir -m 755 NAME`
        names.pop(0)
    return flags, names


def _with_values(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield pip's options with their values; what is no option has the option ""."""
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            yield "", word
        elif word[1:2] != "-" and word[:2] in _WITH_VALUE and len(word) > 2:
            yield word[:2], word[2:]
        elif option in _WITH_VALUE:
            yield option, value if equals else next(rest, "")
        else:
            yield word, ""


def _in_root(word: str) -> str:
    """Put the image's root before an absolute path, also one that is an option's value."""
    if word.startswith("/"):
        return f"{{root}}{word}"
    option, equals, value = word.partition("=")
    if option.startswith("-") and equals and value.startswith("/"):
        return f"{option}={{root}}{value}"
    return word


def _new_mode(old: int, asked: str) -> int:
    """Return the mode after a chmod, with an octal or a symbolic mode such as `u+x,go-w`."""
    if re.fullmatch(r"[0-7]{3,4}", asked):
        return int(asked, 8) & 0o777
    mode = old
    for part in asked.split(","):
        match = re.fullmatch(r"([ugoa]*)([-+=])([rwxX]*)", part)
        if match is None:
            raise _Refused(f"{asked} is not a mode", "an octal number such as 0755")
        bits = sum({"r": 4, "w": 2, "x": 1, "X": 1}[letter] for letter in {*match[3]})
        for who, shift in (("u", 6), ("g", 3), ("o", 0)):
            if not match[1] or who in match[1] or "a" in match[1]:
                kept = mode & ~(7 << shift)
                there = (mode >> shift) & 7
                new = {"+": there | bits, "-": there & ~bits, "=": bits}[match[2]]
                mode = kept | new << shift
    return mode
