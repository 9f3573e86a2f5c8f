"""Run a step in its own image if Docker can get it, else run its command on this machine.

Cloud Build gives each step /workspace, the home folder /builder/home, the Docker engine's socket,
and a metadata server with tokens of its account. On this machine the first two are scratch folders,
and the paths of these and of volumes are replaced in a step's command.

Source: https://cloud.google.com/build/docs/overview and Google's own cloud-build-local.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts.errors import UsageError
from scripts.rehearse.cloudbuild.build import HOME, WORKSPACE, Build, Step, Volume

_SOCKET = "/var/run/docker.sock"
_GOOGLES = re.compile(r"gcr\.io/cloud-builders/([a-z-]+)")
_DOCKERS = re.compile(
    r"(?:docker\.io/)?(?:library/)?docker(?:[:@].*)?|gcr\.io/cloud-builders/docker.*"
)
_GRACE_SECONDS = 10
_PULL_SECONDS = 600


class Running:
    """A step that has started."""

    def __init__(
        self, process: subprocess.Popen[str], where: str, container: str | None = None
    ) -> None:
        self.where = where
        self._process = process
        self._container = container

    def code(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End the step and every process that it started."""
        if self._container and self.code() is None:
            command = ["docker", "rm", "--force", self._container]
            subprocess.run(command, capture_output=True, check=False, timeout=60)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Place:
    """The folders of one build, in which its steps start.

    Args:
        folder: A scratch folder.
        workspace: The folder that Cloud Build checked out.
        build: The build.
        variables: Variables of every step that the file does not name: the addresses of APIs.
        mapped: The substitutions as variables, for steps that ask for them.
        secrets: The values of the build's secret variables.
        docker: Whether steps may use a Docker engine.
        shown: A folder that steps see at its own path, read-only.
    """

    def __init__(
        self,
        folder: Path,
        workspace: Path,
        build: Build,
        *,
        variables: Mapping[str, str],
        mapped: Mapping[str, str],
        secrets: Mapping[str, str],
        docker: bool,
        shown: Path | None = None,
    ) -> None:
        self.folder = folder
        self.workspace = workspace
        self.build = build
        self.variables = variables
        self.mapped = mapped
        self.secrets = secrets
        self.docker = docker
        self.shown = shown
        self._had: dict[str, bool] = {}
        self._lock = threading.Lock()
        self.home = folder / "home"
        self.home.mkdir(parents=True)

    def leaves_out(self, step: Step) -> str | None:
        """Return why a step cannot run here; None if it can."""
        if not self.docker and _DOCKERS.fullmatch(step.name):
            return "this rehearsal uses no Docker engine; the local Cloud Build builds images"
        return None

    def has(self, image: str) -> bool:
        """Return whether Docker has an image, or can pull it."""
        with self._lock:
            if image not in self._had:
                self._had[image] = self.docker and (
                    _docker_does("image", "inspect", image) or _docker_does("pull", image)
                )
            return self._had[image]

    @contextmanager
    def start(self, step: Step, say: Callable[[str], None]) -> Iterator[Running]:
        """Start a step, and end it when the block ends.

        Args:
            step: The step.
            say: Gets each line that the step prints.
        """
        name = f"shipway-rehearsal-{uuid.uuid4().hex[:12]}"
        script = self.folder / f"{name}.script"
        in_image = self.has(step.name)
        if step.script:
            text = step.script if step.script.startswith("#!") else f"#!/bin/sh\n{step.script}"
            script.write_text(text if in_image else self._here(step, text))
            script.chmod(0o755)
        environment = self._environment(step)
        if in_image:
            command = self._docker(step, name, script, environment)
            where, cwd = f"in {step.name}", self.folder
        else:
            command = self._command(step, script)
            where = "its command on this machine, not in its image"
            cwd = self._folder(step)
        try:
            process = subprocess.Popen(
                command, cwd=cwd, env=self._base(in_image) | environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            raise UsageError(
                f"{command[0]} is not on this machine",
                f"the image {step.name} has it, but Docker cannot get this image",
            ) from None
        running = Running(process, where, name if in_image else None)
        reader = threading.Thread(target=_forward, args=(process, say), daemon=True)
        reader.start()
        try:
            yield running
        finally:
            running.kill()  # ends every process that is left
            reader.join(_GRACE_SECONDS)
            assert process.stdout
            process.stdout.close()
            script.unlink(missing_ok=True)

    def _environment(self, step: Step) -> dict[str, str]:
        """Return the variables that the file gives a step; its own override the build's."""
        mapped = step.automap_substitutions
        if mapped is None:
            mapped = self.build.options.automap_substitutions
        made = dict(self.mapped) if mapped else {}
        for entry in [*self.build.options.env, *step.env]:
            name, _, value = entry.partition("=")
            made[name] = value
        for name in [*self.build.options.secret_env, *step.secret_env]:
            made[name] = self.secrets[name]
        return made

    def _base(self, in_image: bool) -> dict[str, str]:
        """Return a step's other variables: of the user's, only PATH and those for Docker."""
        if in_image:
            return dict(os.environ)  # for docker; the container gets only what --env names
        made = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            **self.variables,
        }
        if self.docker:  # this machine's engine and plugins instead of Cloud Build's
            users = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
            made |= {"DOCKER_CONFIG": users}
            made |= {k: os.environ[k] for k in ("DOCKER_HOST",) if k in os.environ}
        return made

    def _docker(
        self, step: Step, name: str, script: Path, environment: Mapping[str, str]
    ) -> list[str]:
        """Return Cloud Build's `docker run`; it names the variables without their values (I9)."""
        folder = step.dir if step.dir.startswith("/") else f"{WORKSPACE}/{step.dir}".rstrip("/")
        mounts = [(str(self.workspace), WORKSPACE), (str(self.home), HOME), (_SOCKET, _SOCKET)]
        mounts += [(str(self._volume(v)), v.path) for v in self._volumes(step)]
        named = {k: v for k, v in self.variables.items() if k != "SHIPWAY_VENV"}
        command = ["docker", "run", "--rm", "--name", name, "--network", "host",
                   "--workdir", folder, "--env", f"HOME={HOME}"]  # fmt: skip
        if self.shown:
            command += ["--volume", f"{self.shown}:{self.shown}:ro"]
        for source, target in mounts:
            command += ["--volume", f"{source}:{target}"]
        for key, value in named.items():
            command += ["--env", f"{key}={value}"]
        for key in environment:
            command += ["--env", key]
        if step.script:
            command += ["--volume", f"{script}:/builder/script", "--entrypoint", "/builder/script"]
        elif step.entrypoint:
            command += ["--entrypoint", step.entrypoint]
        return [*command, step.name, *step.args]

    def _command(self, step: Step, script: Path) -> list[str]:
        """Return a step's command on this machine: its entry point, or that of a known image."""
        if step.script:
            return [str(script)]
        args = [self._here(step, arg) for arg in step.args]
        if step.entrypoint:
            return [self._here(step, step.entrypoint), *args]
        googles = _GOOGLES.match(step.name)
        if googles:
            return [googles[1], *args]
        if not args:
            raise UsageError(f"{step.name}: its entry point is unknown without the image")
        return args

    def _here(self, step: Step, text: str) -> str:
        """Return a text of a step with this machine's folders instead of Cloud Build's."""
        there = {WORKSPACE: self.workspace, HOME: self.home}
        there |= {v.path.rstrip("/"): self._volume(v) for v in self._volumes(step)}
        paths = "|".join(re.escape(path) for path in sorted(there, key=len, reverse=True))
        return re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda m: str(there[m[1]]), text)

    def _folder(self, step: Step) -> Path:
        if step.dir.startswith("/"):
            return Path(self._here(step, step.dir))
        return self.workspace / step.dir

    def _volumes(self, step: Step) -> list[Volume]:
        return [*self.build.options.volumes, *step.volumes]

    def _volume(self, volume: Volume) -> Path:
        made = self.folder / "volumes" / volume.name
        made.mkdir(parents=True, exist_ok=True)
        return made


def _docker_does(*words: str) -> bool:
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, check=False, timeout=_PULL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _forward(process: subprocess.Popen[str], say: Callable[[str], None]) -> None:
    assert process.stdout
    for line in process.stdout:
        say(line.rstrip("\n"))
