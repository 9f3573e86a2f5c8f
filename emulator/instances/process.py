"""The process runtime: an instance is the image's command, run in a folder on the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from emulator.instances import probes
from emulator.instances.command import Command, NoCommand, command
from emulator.instances.launch import Launch
from emulator.instances.lines import Lines, ending
from emulator.instances.process_groups import ProcessGroups
from emulator.instances.python import bare_python
from emulator.instances.runtime import Image, architecture, on_a_port
from emulator.instances.start_failures import image_not_unpacked, never_listened
from emulator.instances.unpack import Limits, unpack
from emulator.logging.models import RevisionLog
from emulator.metadata.server import Identity, MetadataServer, Tokens
from emulator.ports import Ports
from emulator.store import Store

_PIECE = 64 * 1024


class ProcessInstance:
    """A process group on the host."""

    forwarded = False

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: RevisionLog) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.exited = asyncio.Event()
        self.on_exit: list[Callable[[], Awaitable[None]]] = []
        self.pid = process.pid
        self._process = process
        self._log = log
        self._stopping = False
        self._watch = asyncio.create_task(self._watched())

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
            self._log.system(*ending(code))
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
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class ProcessRuntime:
    """Runs instances as processes, from images that are unpacked once under `folder`.

    `tokens` makes the tokens that the metadata servers return. `limits` is what an image may unpack
    to.
    """

    def __init__(self, folder: Path, ports: Ports, tokens: Tokens, limits: Limits) -> None:
        self._tokens = tokens
        self._limits = limits
        here = f"{platform.system().lower()}/{architecture(platform.machine())}"
        self.platforms: Collection[str] = frozenset({"linux/amd64", here})
        self._images = folder / "images"
        self._python = folder / "python"
        self._ports = ports
        self._groups = ProcessGroups(Store(folder / "processes"))
        self._unpacking: dict[str, asyncio.Lock] = {}
        self._setpriv = shutil.which("setpriv")
        shutil.rmtree(self._images / "new", ignore_errors=True)
        self._groups.end_leftovers(self._images)

    async def start(self, launch: Launch, image: Image, log: RevisionLog) -> ProcessInstance:
        """Start an instance and wait until it takes requests; raises StartFailed."""
        try:
            root = await self._unpacked(image)
        except Exception as error:
            raise image_not_unpacked(launch.image, error) from error
        try:
            if (root / "etc/os-release").exists() or (root / "usr/lib/os-release").exists():
                raise NoCommand(
                    "This image has its own operating system, which a process here cannot"
                    " use. To serve it: ./ship up --runtime docker"
                )
            python = await asyncio.to_thread(bare_python, self._python)
            to_run = command(launch, image, root, python)
        except (NoCommand, OSError) as error:
            log.system("ERROR", str(error))
            raise never_listened() from error
        return await on_a_port(self._ports, lambda port: self._try(launch, to_run, port, log))

    async def _try(
        self, launch: Launch, to_run: Command, port: int, log: RevisionLog
    ) -> ProcessInstance | None:
        """Start on `port`; returns None if the instance does not listen there."""
        began = time.monotonic()
        metadata = MetadataServer(
            Identity(launch.revision.project, launch.revision.region, launch.service_account),
            self._tokens,
        )
        host = await metadata.start()
        try:
            instance = await self._spawn(
                to_run, {"PORT": str(port), "GCE_METADATA_HOST": host}, port, log
            )
        except BaseException:
            await metadata.close()
            raise
        instance.on_exit.append(metadata.close)
        passed = False
        try:
            passed = await probes.passes(launch, instance)
        finally:
            if not passed:
                await asyncio.shield(instance.stop(grace=1.0))
        seconds = time.monotonic() - began
        log.system("INFO" if passed else "ERROR", probes.outcome(launch, seconds, passed=passed))
        return instance if passed else None

    async def _spawn(
        self, to_run: Command, extra: dict[str, str], port: int, log: RevisionLog
    ) -> ProcessInstance:
        # On Linux the kernel ends the command when the emulator ends, even when it is killed.
        prefix = [self._setpriv, "--pdeathsig", "KILL", "--"] if self._setpriv else []
        try:
            process = await asyncio.create_subprocess_exec(
                *prefix,
                *to_run.argv,
                cwd=to_run.cwd,
                env={**to_run.env, **extra},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            log.system("ERROR", f"The command cannot be started: {error}")
            raise never_listened() from error
        self._groups.add(process.pid)
        instance = ProcessInstance(process, port, log)

        async def forget() -> None:
            self._groups.remove(process.pid)

        instance.on_exit.append(forget)
        return instance

    async def _unpacked(self, image: Image) -> Path:
        """Return the folder with the image's files; the first call unpacks them."""
        name = image.digest.replace(":", "-")
        root = self._images / name
        async with self._unpacking.setdefault(name, asyncio.Lock()):
            if not root.exists():
                fresh = self._images / "new" / name
                fresh.mkdir(parents=True)
                try:
                    await asyncio.to_thread(unpack, image.layers, fresh, self._limits)
                    fresh.rename(root)
                finally:
                    shutil.rmtree(fresh, ignore_errors=True)
        return root

    async def close(self) -> None:
        """Do nothing: instances have released everything."""


async def _copy_lines(stream: asyncio.StreamReader, name: str, log: RevisionLog) -> None:
    lines = Lines(name, log)
    while piece := await stream.read(_PIECE):
        lines.feed(piece)
    lines.close()
