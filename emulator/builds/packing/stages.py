"""Run a stage's instructions: each changes its files or its configuration."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.builds.packing import pip, runners
from emulator.builds.packing import tree as trees
from emulator.builds.packing.commands import Shell
from emulator.builds.packing.dockerfile import DockerfileError, Instruction, Stage
from emulator.builds.packing.findings import Findings, Problem
from emulator.builds.packing.layer import Ending, Progress
from emulator.builds.packing.program import Program
from emulator.builds.packing.search_paths import PATH
from emulator.builds.packing.tree import Tree
from emulator.builds.packing.users import Users

_ID = re.compile(r"[0-9]{1,10}")  # of a user or a group
_VERSION = re.compile(r"(?:[\w./-]+/)?(python|node):v?(\d+(?:\.\d+)?)[\w.-]*(?:@.*)?")
_ARCHIVE = re.compile(r"\.(tar|tgz|tbz2|txz|tar\.\w+)$")
_SECRETS = re.compile(r"\.env(\..+)?")
_NO_SECRETS = re.compile(r"\.env\.(example|sample|template|dist|defaults)")
_OWN_TOOLS = re.compile(r"(?:[\w./-]+/)?uv(:[\w.-]+)?(@.*)?")


@dataclass(frozen=True)
class Surroundings:
    """The inputs that all stages of a build share.

    Attributes:
        context: the build context.
        arguments: build arguments, which override the defaults of ARG.
        defaults: the ARGs before the first FROM.
        only_read: whether programs are not run, and errors are collected.
        findings: the problems, if `only_read`, and the notes.
        finished: the stages before this one, by name and by number.
    """

    context: Tree
    arguments: dict[str, str]
    defaults: dict[str, str]
    platform: str
    host_platform: str
    cache: Path
    progress: Progress
    ending: Ending = nullcontext
    only_read: bool = False
    findings: Findings = field(default_factory=Findings)
    finished: dict[str, StageResult] = field(default_factory=dict)


@dataclass
class StageResult:
    """The state of a stage after its last instruction, or before.

    Attributes:
        tree: its files.
        changes: the files that each COPY and RUN changed; one layer each.
        config: the OCI image configuration's `config`.
        history: the OCI image configuration's `history`, without times.
        base: the version of the base image's interpreter, as ("python", "3.12"), if it is known.
        filled: the folders with contents that are not known, because programs are not run.
    """

    tree: Tree = field(default_factory=dict)
    changes: list[Tree] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    history: list[dict[str, Any]] = field(default_factory=list)
    users: Users = field(default_factory=Users)
    base: tuple[str, str] | None = None
    filled: list[str] = field(default_factory=list)

    @property
    def python(self) -> str:
        """The version in the names of Python's folders: the base image's, or this machine's."""
        if self.base and self.base[0] == "python" and "." in self.base[1]:
            return self.base[1]
        return f"{sys.version_info.major}.{sys.version_info.minor}"

    def child(self) -> StageResult:
        """Return a stage that starts FROM this one."""
        return StageResult(
            dict(self.tree),
            list(self.changes),
            dict(self.config),
            dict(self.env),
            list(self.shell),
            list(self.history),
            self.users.copy(),
            self.base,
            list(self.filled),
        )


def interpret(stage: Stage, base: StageResult | None, around: Surroundings) -> StageResult:
    """Run a stage's instructions.

    Args:
        stage: the stage.
        base: the stage that it starts FROM; None for an image, whose contents are not included.
        around: what all stages share.

    Raises:
        DockerfileError: an instruction needs the base image.
        Failed: pip fails.
    """
    if base is None:
        match = _VERSION.fullmatch(stage.start.expand(stage.base, around.defaults))
        base = StageResult(base=(match[1], match[2]) if match else None)
    interpreter = _Interpreter(base.child(), around)
    for instruction in stage.instructions:
        try:
            interpreter.execute(instruction)
        except DockerfileError as error:
            if not around.only_read:
                raise
            around.findings.problems += error.problems
    return interpreter.finish()


class _Interpreter:
    def __init__(self, result: StageResult, around: Surroundings) -> None:
        self.result = result
        self.around = around
        self.args: dict[str, str] = {}
        # WORKDIR makes its folder in the next layer: a layer for one folder is of no use.
        self.pending: Tree = {}
        self._do: dict[str, Callable[[Instruction], None]] = {
            "ARG": self.arg,
            "CMD": self.cmd,
            "ADD": self.add,
            "COPY": self.copy,
            "ENTRYPOINT": self.entrypoint,
            "ENV": self.env,
            "EXPOSE": self.expose,
            "HEALTHCHECK": self.nothing,  # Cloud Run ignores it, too: it has its own probes
            "LABEL": self.label,
            "MAINTAINER": self.nothing,
            "RUN": self.run,
            "SHELL": self.shell,
            "STOPSIGNAL": self.stopsignal,
            "USER": self.user,
            "VOLUME": self.volume,
            "WORKDIR": self.workdir,
        }

    def execute(self, instruction: Instruction) -> None:
        do = self._do.get(instruction.name)
        if do is None:
            raise instruction.error("this cannot be packed")
        if instruction.flags and instruction.name not in ("ADD", "COPY", "RUN", "HEALTHCHECK"):
            raise instruction.error(f"it has no option --{instruction.flags[0][0]}")
        before = len(self.result.changes)
        do(instruction)
        event: dict[str, Any] = {"created_by": instruction.text}
        if len(self.result.changes) == before:
            event["empty_layer"] = True
        self.result.history.append(event)

    def finish(self) -> StageResult:
        if self.pending:
            self.result.changes.append(self.pending)
            self.result.history.append({"created_by": "WORKDIR"})
        return self.result

    @property
    def variables(self) -> dict[str, str]:
        return {"PATH": PATH} | self.args | self.result.env  # ENV wins over ARG

    # Instructions that change the configuration

    def nothing(self, _instruction: Instruction) -> None:
        pass

    def arg(self, instruction: Instruction) -> None:
        around = self.around
        for word in instruction.raw_words():
            name, equals, default = word.partition("=")
            if name in around.arguments:
                self.args[name] = around.arguments[name]
            elif equals:
                self.args[name] = instruction.expand(default, self.variables)
            elif name in around.defaults:
                self.args[name] = around.defaults[name]

    def env(self, instruction: Instruction) -> None:
        self.result.env |= instruction.pairs(self.variables)

    def label(self, instruction: Instruction) -> None:
        labels = self.result.config.get("Labels", {})
        self.result.config["Labels"] = labels | instruction.pairs(self.variables)

    def expose(self, instruction: Instruction) -> None:
        ports = dict(self.result.config.get("ExposedPorts", {}))
        for word in " ".join(instruction.words(self.variables)).split():
            ports[word if "/" in word else f"{word}/tcp"] = {}
        self.result.config["ExposedPorts"] = ports

    def volume(self, instruction: Instruction) -> None:
        volumes = self.result.config.get("Volumes", {})
        added: dict[str, Any] = {path: {} for path in instruction.words(self.variables)}
        self.result.config["Volumes"] = volumes | added

    def stopsignal(self, instruction: Instruction) -> None:
        self.result.config["StopSignal"] = instruction.expand(instruction.value, self.variables)

    def user(self, instruction: Instruction) -> None:
        self.result.config["User"] = instruction.expand(instruction.value, self.variables)

    def shell(self, instruction: Instruction) -> None:
        words = instruction.exec_form()
        if not words:
            raise instruction.error('this should read SHELL ["program", "option"]')
        self.result.shell = words

    def cmd(self, instruction: Instruction) -> None:
        self.result.config["Cmd"] = self._command(instruction)

    def entrypoint(self, instruction: Instruction) -> None:
        self.result.config["Entrypoint"] = self._command(instruction)
        self.result.config.pop("Cmd", None)  # an earlier CMD belonged to the earlier entry point

    def _command(self, instruction: Instruction) -> list[str]:
        words = instruction.exec_form()
        words = [*self.result.shell, instruction.value] if words is None else words
        name = runners.runner(words, self.result.shell)
        if not name:
            return words
        own = self.variables.get("UV_PROJECT_ENVIRONMENT", ".venv")
        folder = f"/{trees.inside(own, self._workdir)}/bin"
        try:
            words = runners.without_runner(words, self.result.shell)
        except runners.NotKnown as error:
            self.result.config.setdefault("Cmd", words)  # there is one
            instead = f"{instruction.name} without `{name} run`"
            if name == "uv":
                instead += f', after ENV PATH="{folder}:$PATH"'
            raise instruction.error(f"`{name} run` is not known with {error}", instead) from None
        if name == "uv":
            self.result.env["PATH"] = f"{folder}:{self.variables['PATH']}"
        return words

    # Instructions that change files

    def workdir(self, instruction: Instruction) -> None:
        asked = instruction.expand(instruction.value, self.variables)
        path = trees.inside(asked, self._workdir)
        self.result.config["WorkingDir"] = f"/{path}"
        if path:
            for new in trees.add(self.result.tree, path, trees.FOLDER):
                self.pending[new] = trees.FOLDER

    def add(self, instruction: Instruction) -> None:
        """Copy, which is all that ADD does with files that are no archives."""
        *sources, target = instruction.words(self.variables)
        if any("://" in source or _ARCHIVE.search(source) for source in sources):
            raise instruction.error(
                "only COPY is known: nothing is downloaded or unpacked",
                f"COPY FILE… {target}, with the files in the repository",
            )
        self.copy(instruction)

    def copy(self, instruction: Instruction) -> None:
        if instruction.documents:
            raise instruction.error("here-documents are not copied", "COPY of a file")
        origin, owner, mode = self.around.context, (0, 0), None
        where, filled = "the build context, or is left out by .dockerignore", list[str]()
        for flag, raw in instruction.flags:
            value = instruction.expand(raw, self.variables)
            if flag == "from":
                if value.lower() not in self.around.finished and _OWN_TOOLS.fullmatch(value):
                    note = instruction.note("left out: this machine's own is used")
                    self.around.findings.notes.append(note)
                    return
                stage = self._stage(instruction, value)
                origin, where, filled = stage.tree, f"stage {value}", stage.filled
            elif flag == "chown":
                owner = self._owner(instruction, value)
            elif flag == "chmod":
                if not re.fullmatch(r"0?[0-7]{3,4}", value):
                    raise instruction.error("--chmod takes an octal number such as 0755")
                mode = int(value, 8)
            elif flag != "link":  # --link only changes how Docker makes layers
                raise instruction.error(f"--{flag} is not known", "COPY of each file and folder")
        *sources, target = instruction.words(self.variables)
        if not sources:
            raise instruction.error("this should read COPY source… destination")
        found = [(source, trees.matching(origin, source)) for source in sources]
        place = trees.followed(self.result.tree, trees.inside(target, self._workdir))
        for source, paths in found:
            # Beside other files, a pattern may match none: `COPY pyproject.toml poetry.lock* ./`.
            may_be_none = set("*?[") & {*source} and any(some for _, some in found)
            if not paths and not may_be_none and not _may_be_in(filled, source):
                raise instruction.error(f"{source} is not in {where}")
        # Where programs are not run, what they fill is copied as folders of unknown contents.
        self.result.filled += [place for source, _ in found if _may_be_in(filled, source)]
        paths = [path for _, several in found for path in several]
        into = len(paths) > 1 or target == "." or target.endswith(("/", "/."))
        existing = self.result.tree.get(place)
        into = into or place == "" or (existing is not None and existing.kind == "folder")
        placed = trees.placed(origin, paths, place, into, owner, mode)
        for path in placed:
            name = posixpath.basename(path)
            if _SECRETS.fullmatch(name) and not _NO_SECRETS.fullmatch(name):
                raise DockerfileError(
                    Problem(
                        instruction.file,
                        instruction.line,
                        instruction.quoted,
                        f"it copies {name}: who can read an image reads the secrets in it",
                        f"{name} in .dockerignore and .gitignore, variables in service.yaml, "
                        "secrets in Secret Manager",
                        with_docker_too=True,
                    )
                )
        changed = dict(self.result.tree)
        for path, entry in sorted(placed.items()):
            if entry.kind != "folder" or path not in changed:
                trees.add(changed, path, entry)
        self._become(changed)

    def run(self, instruction: Instruction) -> None:
        mounted: Tree = {}
        for flag, value in instruction.flags:
            if flag == "mount":
                mounted |= self._mount(instruction, value)
            elif flag not in ("network", "security"):
                raise instruction.error(f"it has no option --{flag}")
        user, _, group = self.result.config.get("User", "").partition(":")
        # Names are in the base image. A user without an entry there has group 0.
        known = _ID.fullmatch(user) and _ID.fullmatch(group or "0")
        owner = (int(user), int(group or 0)) if known else (0, 0)
        tree = dict(self.result.tree)

        def run(program: Program) -> None:
            if self.around.only_read:
                self.result.filled += program.makes
                for path in program.makes:
                    if path:
                        trees.add(tree, path, trees.FOLDER)
                return
            around, python = self.around, self.result.python
            step = pip.Run(
                instruction, program, tree, mounted, shell.variables, owner, around.platform, python
            )
            made = pip.run(step, around.cache, around.progress, around.host_platform, around.ending)
            for path, entry in made.items():
                if entry.kind == "gone":
                    trees.remove(tree, path)
                elif entry.kind != "folder" or path not in tree:
                    trees.add(tree, path, entry)

        shell = Shell(
            instruction=instruction,
            tree=tree,
            variables=self.variables,
            folder=self._workdir,
            python=self.result.python,
            home="/root" if user in ("", "0", "root") else f"/home/{user}",
            users=self.result.users,
            run=run,
            note=self.around.findings.notes.append,
        )
        shell.execute()
        self._become(tree)

    def _mount(self, instruction: Instruction, value: str) -> Tree:
        """Return the files of a bind mount; other mounts have none."""
        options = dict(part.partition("=")[::2] for part in value.split(","))
        kind = options.get("type", "bind")
        if kind in ("cache", "secret", "ssh", "tmpfs"):
            return {}
        target = options.get("target") or options.get("dst") or options.get("destination")
        if kind != "bind" or not target:
            raise instruction.error(f"--mount={value} is not supported")
        stage = options.get("from")
        origin = self._stage(instruction, stage).tree if stage else self.around.context
        source = trees.inside(options.get("source") or options.get("src") or "", "")
        place = trees.inside(target, self._workdir)
        if source and source not in origin:
            raise instruction.error(f"--mount: there is no {source} to mount")
        if source and origin[source].kind != "folder":
            return {place: trees.identified(origin[source])}
        inner = trees.below(origin, source)
        return {f"{place}/{name}": trees.identified(entry) for name, entry in inner}

    def _become(self, tree: Tree) -> None:
        """Set the stage's files; what differs from the earlier ones is one more layer."""
        changed = self.pending | trees.difference(self.result.tree, tree)
        self.result.tree = tree
        if changed != self.pending:
            self.result.changes.append(changed)
            self.pending = {}

    def _stage(self, instruction: Instruction, name: str) -> StageResult:
        stage = self.around.finished.get(name.lower())
        if stage is None:
            raise instruction.error(
                f"there is no stage {name} above, and other images are not read",
                "COPY of a file in the repository",
            )
        return stage

    def _owner(self, instruction: Instruction, value: str) -> tuple[int, int]:
        user, _, group = value.partition(":")
        users, groups = self.result.users.users, self.result.users.groups
        numbers = []
        for name, table in ((user or "root", users), (group or user or "root", groups)):
            number = int(name) if _ID.fullmatch(name) else table.get(name)
            if number is None:
                raise instruction.error(
                    f"{name} is neither created above nor known", f"RUN useradd {name}, above"
                )
            numbers.append(number)
        return numbers[0], numbers[1]

    @property
    def _workdir(self) -> str:
        directory: str = self.result.config.get("WorkingDir", "/")
        return directory


def _may_be_in(filled: list[str], source: str) -> bool:
    """Return whether a COPY source may be among the unknown contents of folders, or above them."""
    path = trees.inside(source, "")
    return any(
        f"{path}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{path}/") or not path
        for folder in filled
    )
