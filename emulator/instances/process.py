"""The process runtime: an instance is the image's command, run as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from emulator.instances import fixed_ports, network, probes, sockets
from emulator.instances.command import Command, NoCommand, command
from emulator.instances.fixed_ports import FixedPort
from emulator.instances.launch import Launch, image_settings
from emulator.instances.lines import Lines, ending, of_shell
from emulator.instances.network import NoNetwork
from emulator.instances.process_groups import ProcessGroups
from emulator.instances.runtime import Image, architecture, on_a_port
from emulator.instances.sandbox import NoSandbox, Sandbox, Started
from emulator.instances.start_failures import never_listened
from emulator.instances.unpack import Limits
from emulator.instances.unpacked import UnpackedImages
from emulator.logging.models import RevisionLog
from emulator.metadata.server import Identity, MetadataServer, Tokens
from emulator.packed import other_interpreter
from emulator.ports import Ports
from emulator.store import Store

# Google has no such variable: an app passes its value to the client library, which has none either.
_SECRETS = "SECRET_MANAGER_ENDPOINT"
_PIECE = 64 * 1024
_LOOK_AGAIN = 0.005
_PATIENCE = 5.0  # seconds
_HTTP = 80
_TRIES = 2


class _Work(NamedTuple):
    """What the instances of a revision are started from."""

    launch: Launch
    root: Path
    run: Command
    user: str
    log: RevisionLog


class ProcessInstance:
    """A process group on the host; in a sandbox, its first process is bubblewrap's."""

    forwarded = False

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        port: int,
        log: RevisionLog,
        *,
        sandboxed: bool = False,
    ) -> None:
        self.port = port
        self.exited = asyncio.Event()
        self.on_exit: list[Callable[[], Awaitable[None]]] = []
        self.pid = process.pid
        self._process = process
        self._log = log
        self._sandboxed = sandboxed
        self._stopping = False
        self._watch = asyncio.create_task(self._watched())

    @property
    def url(self) -> str:
        """The URL that it answers at."""
        return f"http://127.0.0.1:{self.port}"

    async def _watched(self) -> None:
        """Log the output until the process ends, and how it ended."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        copies = [
            asyncio.create_task(_copy_lines(self._process.stdout, "stdout", self._log)),
            asyncio.create_task(_copy_lines(self._process.stderr, "stderr", self._log)),
        ]
        code = await self._process.wait()
        # Processes that the command left in its group end, too, and close the pipes.
        self._signal(signal.SIGKILL)
        await asyncio.wait(copies, timeout=1.0)
        for copy in copies:
            copy.cancel()
        if not self._stopping:
            self._log.system(*ending(of_shell(code) if self._sandboxed else code))
        self.exited.set()
        for action in self.on_exit:
            await action()

    async def stop(self, grace: float) -> None:
        """End the process group: SIGTERM, and SIGKILL after `grace` seconds."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.exited.wait(), grace)
        except TimeoutError:
            self._signal(signal.SIGKILL)
        await asyncio.shield(self._watch)

    def _signal(self, number: int) -> None:
        # The end of bubblewrap kills what is in the sandbox, so a polite signal is not for it. The
        # first process in the sandbox ignores signals, and leads the group of the others.
        inner = sockets.first_child(self.pid) if self._sandboxed else None
        group = inner if inner and number != signal.SIGKILL else self.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


class ProcessRuntime:
    """Runs instances as processes, from images that are unpacked once under `folder`.

    Args:
        folder: The folder for its files.
        ports: Where free ports come from.
        tokens: Makes the tokens that the metadata servers return.
        limits: What an image may unpack to.
        api_port: The port of the local Cloud Run's own APIs.
        sandboxed: Whether instances run in namespaces, where this machine allows it.

    Attributes:
        no_sandbox: Why instances do not run in namespaces; "" if they do.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        tokens: Tokens,
        limits: Limits,
        *,
        api_port: int,
        sandboxed: bool,
    ) -> None:
        self._tokens = tokens
        here = f"{platform.system().lower()}/{architecture(platform.machine())}"
        self.platforms: Collection[str] = frozenset({"linux/amd64", here})
        self._images = UnpackedImages(folder / "images", limits)
        self._homes = folder / "homes"
        self._ports = ports
        self._api_port = api_port
        self._groups = ProcessGroups(Store(folder / "processes"))
        self._setpriv = shutil.which("setpriv")
        # Images, by digest, that listen on their container port whatever $PORT says.
        self._fixed: set[str] = set()
        self._sandbox: Sandbox | None = None
        self.no_sandbox = "it is turned off (--sandbox none)."
        if sandboxed:
            try:
                self._sandbox, self.no_sandbox = Sandbox.find(), ""
            except NoSandbox as error:
                self.no_sandbox = str(error)
        self._no_network = network.missing(self.no_sandbox)
        shutil.rmtree(self._homes, ignore_errors=True)
        self._groups.end_leftovers(folder / "images")

    async def start(self, launch: Launch, image: Image, log: RevisionLog) -> ProcessInstance:
        """Start an instance and wait until it takes requests; raises StartFailed."""
        try:
            if await self.has_system(launch, image):
                raise NoCommand("This image has an operating system of its own: it needs Docker.")
            root = await self._images.of(image, launch.image)
            endpoint = (_SECRETS, f"http://127.0.0.1:{self._api_port}")
            told = replace(launch, env=(endpoint, *launch.env))
            run = command(told, image, root, sandboxed=self._sandbox is not None)
            if self._sandbox is None:
                Path(run.cwd).mkdir(parents=True, exist_ok=True)
        except (NoCommand, OSError) as error:
            log.system("ERROR", str(error))
            raise never_listened(launch.container_port, str(error)) from error
        if other := await asyncio.to_thread(other_interpreter, image.config):
            log.system("WARNING", other)
        user = image_settings(image.config).get("User") or ""
        work = _Work(launch, root, run, user, log)
        if fixed_ports.is_named(run.argv, launch.container_port):
            self._fixed.add(image.digest)
        return await self._on_a_port(work, image.digest)

    async def _on_a_port(self, work: _Work, image: str) -> ProcessInstance:
        """Start an instance in the network that it needs; raises StartFailed."""
        port = work.launch.container_port
        refused = 0
        while True:
            own = image in self._fixed and not self._no_network
            start = partial(self._try, work, own_network=own)
            try:
                return await on_a_port(self._ports, start, port)
            except FixedPort:
                self._fixed.add(image)
                if self._no_network:
                    problem = fixed_ports.taken_text(port, self._no_network)
                    work.log.system("ERROR", problem)
                    raise never_listened(port, problem) from None
            except NoNetwork as error:
                refused += 1
                if refused < _TRIES:  # the port may have been taken in between
                    continue
                self._no_network = f"pasta gives it no network of its own ({error})."
                work.log.system("WARNING", f"{self._no_network} It runs in this machine's.")

    async def _try(self, work: _Work, port: int, *, own_network: bool) -> ProcessInstance | None:
        """Start on `port`; returns None if the instance does not listen there.

        Raises:
            FixedPort: It listens on its container's port, or tried to, whatever $PORT says.
            NoNetwork: It gets no network of its own.
            StartFailed: It listens on another port.
        """
        launch, log = work.launch, work.log
        began = time.monotonic()
        metadata = MetadataServer(
            Identity(launch.revision.project, launch.revision.region, launch.service_account),
            self._tokens,
        )
        await metadata.start(named=self._sandbox is not None and not own_network)
        try:
            instance = await self._spawn(work, port, metadata, own_network=own_network)
        except BaseException:
            await metadata.close()
            raise
        passed = False
        try:
            passed = await self._passes(work, instance, own_network=own_network)
        finally:
            if not passed:
                await asyncio.shield(instance.stop(grace=1.0))
        seconds = time.monotonic() - began
        log.system("INFO" if passed else "ERROR", probes.outcome(launch, seconds, passed=passed))
        return instance if passed else None

    async def _passes(self, work: _Work, instance: ProcessInstance, *, own_network: bool) -> bool:
        """Return whether an instance passes its startup probe; raises like `_try`."""
        launch = work.launch
        told = launch.container_port if own_network else instance.port
        probing = asyncio.create_task(_probed(launch, instance, own_network=own_network))
        looking = asyncio.create_task(fixed_ports.elsewhere(instance.pid, told, launch))
        try:
            await asyncio.wait([probing, looking], return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                if instance.exited.is_set() and fixed_ports.may_be_taken(launch, told):
                    raise FixedPort
                return probing.result()
            found = looking.result()
        finally:
            probing.cancel()
            looking.cancel()
        if found.port != launch.container_port:
            problem = fixed_ports.elsewhere_text(found, told)
            work.log.system("ERROR", problem)
            raise never_listened(launch.container_port, problem)
        if not self._no_network:
            raise FixedPort
        # Nothing else has that port, so this instance serves from there.
        instance.port = launch.container_port
        return await probes.passes(launch, instance)

    async def _spawn(
        self, work: _Work, port: int, metadata: MetadataServer, *, own_network: bool
    ) -> ProcessInstance:
        inside = work.launch.container_port if own_network else port
        ours = {
            "PORT": str(inside),
            "GCE_METADATA_HOST": metadata.host,
            "GCE_METADATA_IP": metadata.host,
        }
        if self._sandbox is None:
            return await self._spawn_here(work, port, metadata, ours)
        run = replace(work.run, env={"HOME": self._sandbox.home, **work.run.env, **ours})
        if not own_network:
            started = self._sandbox.command(run, work.root, work.user, metadata.named)
            return await self._process(started, None, {}, work, port, [metadata.close])
        # Port 80 of its own network leads to the metadata server, unless the app listens there.
        named = "" if inside == _HTTP else "127.0.0.1"
        reading, holding = os.pipe()
        try:
            more = ["--unshare-net", "--block-fd", str(reading)]
            started = self._sandbox.command(run, work.root, work.user, named, *more)
            started.descriptors.append(reading)
            instance = await self._process(started, None, {}, work, port, [metadata.close])
            try:
                first = await _first_inside(instance)
                reachable = [range(p, p + 1) for p in (self._api_port, metadata.port)]
                connection = await network.connect(
                    first, port, inside, [*reachable, *self._ports.blocks()],
                    {_HTTP: metadata.port} if named else {},
                )  # fmt: skip
            except BaseException:
                await asyncio.shield(instance.stop(grace=0.0))
                raise
            instance.on_exit.append(connection.close)
            return instance
        finally:
            os.close(holding)

    async def _spawn_here(
        self, work: _Work, port: int, metadata: MetadataServer, ours: dict[str, str]
    ) -> ProcessInstance:
        """Start without a sandbox, with an empty home folder all the same."""
        self._homes.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._homes))
        home, temporary = folder / "home", folder / "temporary"
        home.mkdir()
        temporary.mkdir()

        async def remove() -> None:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

        env = {"HOME": str(home), "TMPDIR": str(temporary), **work.run.env, **ours}
        # On Linux the kernel ends the command when the emulator ends, even when it is killed.
        prefix = [self._setpriv, "--pdeathsig", "KILL", "--"] if self._setpriv else []
        started = Started([*prefix, *work.run.argv], [])
        return await self._process(started, work.run.cwd, env, work, port, [metadata.close, remove])

    async def _process(
        self,
        started: Started,
        cwd: str | None,
        env: dict[str, str],
        work: _Work,
        port: int,
        on_exit: list[Callable[[], Awaitable[None]]],
    ) -> ProcessInstance:
        """Start a process, which `on_exit` follows; raises StartFailed."""
        try:
            process = await asyncio.create_subprocess_exec(
                *started.argv,
                cwd=cwd,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=started.descriptors,
            )
        except OSError as error:
            work.log.system("ERROR", f"The command cannot be started: {error}")
            raise never_listened(work.launch.container_port, str(error)) from error
        finally:
            for descriptor in started.descriptors:
                os.close(descriptor)
        self._groups.add(process.pid)
        instance = ProcessInstance(process, port, work.log, sandboxed=self._sandbox is not None)

        async def forget() -> None:
            self._groups.remove(process.pid)

        instance.on_exit += [*on_exit, forget]
        return instance

    async def has_system(self, launch: Launch, image: Image) -> bool:
        """Return whether an image has an operating system of its own; raises StartFailed."""
        root = await self._images.of(image, launch.image)
        return (root / "etc/os-release").exists() or (root / "usr/lib/os-release").exists()

    async def close(self) -> None:
        """Do nothing: instances have released everything."""


async def _probed(launch: Launch, instance: ProcessInstance, *, own_network: bool) -> bool:
    """Return whether an instance passes its startup probe."""
    if own_network:
        # The way into its network takes connections before the instance does.
        deadline = time.monotonic() + launch.probe.budget
        inner = sockets.first_child(instance.pid)
        while inner and launch.container_port not in {
            one.port for one in sockets.in_network(inner)
        }:
            if instance.exited.is_set() or time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_AGAIN)
    return await probes.passes(launch, instance)


async def _first_inside(instance: ProcessInstance) -> int:
    """Return the first process in a sandbox; raises NoNetwork if there is none."""
    deadline = time.monotonic() + _PATIENCE
    while not instance.exited.is_set() and time.monotonic() < deadline:
        if first := sockets.first_child(instance.pid):
            return first
        await asyncio.sleep(_LOOK_AGAIN)
    raise NoNetwork("its sandbox does not start")


async def _copy_lines(stream: asyncio.StreamReader, name: str, log: RevisionLog) -> None:
    lines = Lines(name, log)
    while piece := await stream.read(_PIECE):
        lines.feed(piece)
    lines.close()
