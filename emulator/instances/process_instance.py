"""An instance, or a container of one, as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

from emulator.instances import sockets
from emulator.instances.lines import Lines, ending, of_shell
from emulator.logging.models import RevisionLog

_PIECE = 64 * 1024


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
        self.ways: Mapping[int, int] = {}
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


async def _copy_lines(stream: asyncio.StreamReader, name: str, log: RevisionLog) -> None:
    lines = Lines(name, log)
    while piece := await stream.read(_PIECE):
        lines.feed(piece)
    lines.close()
