"""Run a stage's instructions: each changes its files or its configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.image.packing import pip
from scripts.image.packing import tree as trees
from scripts.image.packing.dockerfile import Instruction, Stage
from scripts.image.packing.layer import Progress
from scripts.image.packing.tree import Tree

_ID = re.compile(r"[0-9]{1,10}")  # of a user or a group


@dataclass(frozen=True)
class Surroundings:
    """The inputs that all stages of a build share.

    Attributes:
        context: the build context.
        arguments: build arguments, which override the defaults of ARG.
        defaults: the ARGs before the first FROM.
        finished: the stages before this one, by name and by number.
    """

    context: Tree
    arguments: dict[str, str]
    defaults: dict[str, str]
    platform: str
    host_platform: str
    cache: Path
    progress: Progress
    finished: dict[str, StageResult] = field(default_factory=dict)


@dataclass
class StageResult:
    """The state of a stage after its last instruction, or before.

    Attributes:
        tree: its files.
        changes: the files that each COPY and RUN changed; one layer each.
        config: the OCI image configuration's `config`.
        history: the OCI image configuration's `history`, without times.
    """

    tree: Tree = field(default_factory=dict)
    changes: list[Tree] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    history: list[dict[str, Any]] = field(default_factory=list)

    def child(self) -> StageResult:
        """Return a stage that starts FROM this one."""
        return StageResult(
            dict(self.tree),
            list(self.changes),
            dict(self.config),
            dict(self.env),
            list(self.shell),
            list(self.history),
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
    interpreter = _Interpreter(base.child() if base else StageResult(), around)
    for instruction in stage.instructions:
        interpreter.execute(instruction)
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
            better = "; use COPY" if instruction.name == "ADD" else ""
            raise instruction.error(
                f"the pack builder does not know this{better}, or build with --builder docker"
            )
        if instruction.flags and instruction.name not in ("COPY", "RUN", "HEALTHCHECK"):
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
        if self.result.env:
            self.result.config["Env"] = [f"{k}={v}" for k, v in self.result.env.items()]
        return self.result

    @property
    def variables(self) -> dict[str, str]:
        return self.args | self.result.env  # ENV wins over ARG

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
        return [*self.result.shell, instruction.value] if words is None else words

    # Instructions that change files

    def workdir(self, instruction: Instruction) -> None:
        asked = instruction.expand(instruction.value, self.variables)
        path = trees.inside(asked, self._workdir)
        self.result.config["WorkingDir"] = f"/{path}"
        if path:
            for new in trees.add(self.result.tree, path, trees.FOLDER):
                self.pending[new] = trees.FOLDER

    def copy(self, instruction: Instruction) -> None:
        origin, owner, mode = self.around.context, (0, 0), None
        where = "the build context, or is left out by .dockerignore"
        for flag, raw in instruction.flags:
            value = instruction.expand(raw, self.variables)
            if flag == "from":
                origin, where = self._stage(instruction, value).tree, f"stage {value}"
            elif flag == "chown":
                owner = _owner(instruction, value)
            elif flag == "chmod":
                if not re.fullmatch(r"0?[0-7]{3,4}", value):
                    raise instruction.error("--chmod takes an octal number such as 0755")
                mode = int(value, 8)
            elif flag != "link":  # --link only changes how Docker makes layers
                raise instruction.error(
                    f"the pack builder does not know --{flag}; build with --builder docker"
                )
        *sources, target = instruction.words(self.variables)
        if not sources:
            raise instruction.error("this should read COPY source… destination")
        found = [(source, trees.matching(origin, source)) for source in sources]
        for source, paths in found:
            if not paths:
                raise instruction.error(f"{source} is not in {where}")
        paths = [path for _, several in found for path in several]
        place = trees.followed(self.result.tree, trees.inside(target, self._workdir))
        into = len(paths) > 1 or target == "." or target.endswith(("/", "/."))
        existing = self.result.tree.get(place)
        into = into or place == "" or (existing is not None and existing.kind == "folder")
        self._change(trees.placed(origin, paths, place, into, owner, mode))

    def run(self, instruction: Instruction) -> None:
        around = self.around
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
        step = pip.Run(
            instruction,
            self.result.tree,
            mounted,
            self.variables,
            self._workdir,
            owner,
            around.platform,
        )
        added = pip.run(step, around.cache, around.progress, around.host_platform)
        self._change(added)

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

    def _change(self, added: Tree) -> None:
        """Add files to the stage; those that differ from the existing ones are one more layer."""
        changed, self.pending = self.pending, {}
        for path, entry in sorted(added.items()):
            if entry.kind == "folder" and path in self.result.tree:
                continue
            for new in trees.add(self.result.tree, path, entry):
                changed[new] = self.result.tree[new]
        if changed:
            self.result.changes.append(changed)

    def _stage(self, instruction: Instruction, name: str) -> StageResult:
        stage = self.around.finished.get(name.lower())
        if stage is None:
            raise instruction.error(
                f"there is no stage {name} above, and the pack builder does not read images; "
                "build with --builder docker"
            )
        return stage

    @property
    def _workdir(self) -> str:
        directory: str = self.result.config.get("WorkingDir", "/")
        return directory


def _owner(instruction: Instruction, value: str) -> tuple[int, int]:
    user, _, group = value.partition(":")
    names = {"root": "0", "": "0"}
    user = names.get(user, user)
    group = names.get(group, group) if group else user
    if not _ID.fullmatch(user) or not _ID.fullmatch(group):
        raise instruction.error(
            f"{value}: user names are in the base image, which the pack builder does not have; "
            "use numbers, or build with --builder docker"
        )
    return int(user), int(group)
