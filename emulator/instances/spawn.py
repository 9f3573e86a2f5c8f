"""Starts the processes of instances, in a sandbox where this machine allows one."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from emulator.instances.command import Command
from emulator.instances.launch import Launch
from emulator.instances.process_groups import ProcessGroups
from emulator.instances.process_instance import ProcessInstance
from emulator.instances.sandbox import Bind, NoSandbox, Sandbox, Started
from emulator.instances.start_failures import never_listened
from emulator.logging.models import RevisionLog
from emulator.store import Store

Action = Callable[[], Awaitable[None]]


class Work(NamedTuple):
    """What a container is started from."""

    launch: Launch
    root: Path
    run: Command
    user: str
    log: RevisionLog


class Spawner:
    """Starts processes.

    Args:
        folder: The folder for its files.
        sandboxed: Whether they run in namespaces, where this machine allows it.

    Attributes:
        sandbox: The sandbox, if there is one.
        no_sandbox: Why there is none; "" if there is.
    """

    def __init__(self, folder: Path, *, sandboxed: bool) -> None:
        self._homes = folder / "homes"
        self._groups = ProcessGroups(Store(folder / "processes"))
        self._setpriv = shutil.which("setpriv")
        self.sandbox: Sandbox | None = None
        self.no_sandbox = "it is turned off (--sandbox none)."
        if sandboxed:
            try:
                self.sandbox, self.no_sandbox = Sandbox.find(), ""
            except NoSandbox as error:
                self.no_sandbox = str(error)
        shutil.rmtree(self._homes, ignore_errors=True)

    def end_leftovers(self, workplace: Path) -> None:
        """Kill the processes of an earlier emulator, which work in the folder `workplace`."""
        self._groups.end_leftovers(workplace)

    def folder(self) -> Path:
        """Make an empty folder, which the next start removes if no one else does."""
        self._homes.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self._homes))

    async def start(
        self,
        work: Work,
        port: int,
        ours: dict[str, str],
        on_exit: list[Action],
        *,
        named: str = "",
        binds: Sequence[Bind] = (),
        enter: Sequence[str] = (),
        more: Sequence[str] = (),
        block: int | None = None,
    ) -> ProcessInstance:
        """Start a container's command; raises StartFailed.

        Args:
            work: What to start.
            port: The port of 127.0.0.1 that leads to it.
            ours: Its variables, besides its own.
            on_exit: What to do when it has ended.
            named: The address of metadata.google.internal, in a sandbox.
            binds: Folders that it sees in a sandbox.
            enter: The words before the sandbox's command, which enter a network.
            more: More arguments for the sandbox.
            block: A file descriptor that the sandbox waits for.
        """
        if self.sandbox is None:
            return await self._here(work, port, ours, on_exit)
        run = replace(work.run, env={"HOME": self.sandbox.home, **work.run.env, **ours})
        started = self.sandbox.command(run, work.root, work.user, named, *more, binds=binds)
        if block is not None:
            started.descriptors.append(block)
        argv = [*enter, *started.argv]
        return await self._process(Started(argv, started.descriptors), work, port, on_exit)

    async def _here(
        self, work: Work, port: int, ours: dict[str, str], on_exit: list[Action]
    ) -> ProcessInstance:
        """Start without a sandbox, with an empty home folder all the same."""
        folder = self.folder()
        home, temporary = folder / "home", folder / "temporary"
        home.mkdir()
        temporary.mkdir()

        async def remove() -> None:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

        env = {"HOME": str(home), "TMPDIR": str(temporary), **work.run.env, **ours}
        # On Linux the kernel ends the command when the emulator ends, even when it is killed.
        prefix = [self._setpriv, "--pdeathsig", "KILL", "--"] if self._setpriv else []
        started = Started([*prefix, *work.run.argv], [])
        return await self._process(started, work, port, [*on_exit, remove], work.run.cwd, env)

    async def _process(
        self,
        started: Started,
        work: Work,
        port: int,
        on_exit: list[Action],
        cwd: str | None = None,
        env: dict[str, str] | None = None,
    ) -> ProcessInstance:
        """Start a process, which `on_exit` follows; raises StartFailed."""
        try:
            process = await asyncio.create_subprocess_exec(
                *started.argv,
                cwd=cwd,
                env=env or {},
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
        instance = ProcessInstance(process, port, work.log, sandboxed=self.sandbox is not None)

        async def forget() -> None:
            self._groups.remove(process.pid)

        instance.on_exit += [*on_exit, forget]
        return instance
