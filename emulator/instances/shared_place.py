"""Where the containers of one instance run as processes: a network, volumes, a metadata server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from emulator.instances import network, probes
from emulator.instances.launch import Launch
from emulator.instances.network import SharedNetwork
from emulator.instances.process_instance import ProcessInstance
from emulator.instances.runtime import Instance
from emulator.instances.sandbox import Bind
from emulator.instances.spawn import Spawner, Work
from emulator.instances.start_failures import probe_failed
from emulator.logging.models import RevisionLog
from emulator.metadata.server import MetadataServer
from emulator.ports import Ports, is_free

_HTTP = 80


class SharedPlace:
    """The place of one instance, as `together.Place`.

    Args:
        launch: The revision.
        works: What each container is started from, by name.
        spawner: Starts processes.
        ports: Where free ports come from.
        metadata: The instance's metadata server.
    """

    def __init__(
        self,
        launch: Launch,
        works: Mapping[str, Work],
        spawner: Spawner,
        ports: Ports,
        metadata: MetadataServer,
    ) -> None:
        self._launch = launch
        self._works = works
        self._spawner = spawner
        self._ports = ports
        self._metadata = metadata
        self._network: SharedNetwork | None = None
        self._folder = spawner.folder()
        self._starting = asyncio.Lock()
        self._started = False
        port = launch.container_port
        # Without a network of its own, a sidecar finds the app there if nothing else has the port.
        self._port = port if is_free(port) else ports.free()
        self._ways: dict[int, int] = {}

    async def open_network(self, reachable: Iterable[range]) -> None:
        """Make a network for the containers; raises NoNetwork, and then they share the machine's.

        `reachable` are ports of this machine's 127.0.0.1 that are the same ports in it.
        """
        await self._start_metadata(named=False)
        inside = probes.ports(self._launch)
        ways = {port: self._ports.free() for port in sorted(inside)}
        renamed = {} if _HTTP in inside else {_HTTP: self._metadata.port}
        own = range(self._metadata.port, self._metadata.port + 1)
        self._network = await SharedNetwork.open(
            {outside: port for port, outside in ways.items()},
            [*reachable, own, *self._ports.blocks()],
            renamed,
        )
        self._ways, self._port = ways, ways[self._launch.container_port]

    async def _start_metadata(self, *, named: bool) -> None:
        async with self._starting:
            if not self._started:
                await self._metadata.start(named=named)
                self._started = True

    async def start(self, container: Launch, log: RevisionLog) -> ProcessInstance:
        """Start a container, and do not wait until it listens; raises StartFailed."""
        await self._start_metadata(named=self._spawner.sandbox is not None)
        work = self._works[container.container]
        named = self._metadata.named
        enter: list[str] = []
        if self._network is not None:
            enter = self._network.enter
            named = "" if _HTTP in self._ways else "127.0.0.1"
        ours = {"GCE_METADATA_HOST": self._metadata.host, "GCE_METADATA_IP": self._metadata.host}
        if container is self._launch:
            ours["PORT"] = str(container.container_port if self._network else self._port)
        elif self._network is None and (taken := _taken(container)):
            raise probe_failed(container.container, _taken_text(taken))
        if container.mounts and self._spawner.sandbox is None:
            log.system("WARNING", f"Its volumes are missing: {self._spawner.no_sandbox}")
        instance = await self._spawner.start(
            work, self._port, ours, [], named=named, binds=binds(work, self._folder), enter=enter
        )
        instance.ways = self._ways
        return instance

    async def passes(self, container: Launch, member: Instance) -> bool:
        """Wait until a container passes its startup probe; return whether it does."""
        if self._network is not None and (probe := container.probe):
            inside, exited = self._network.pid, member.exited
            if not await network.listened(inside, probe.port, exited, probe.budget):
                return False
        return await probes.passes(container, member)

    async def close(self) -> None:
        """Release the network, the volumes and the metadata server."""
        if self._network is not None:
            await self._network.close()
        if self._started:
            await self._metadata.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def binds(work: Work, folder: Path) -> list[Bind]:
    """Return the volumes of a container: folders below `folder`, which it shares with others."""
    found = []
    for mount in work.launch.mounts:
        volume = folder / mount.volume
        volume.mkdir(exist_ok=True)
        volume.chmod(0o777)
        found.append(Bind(volume, mount.path, mount.read_only))
    return found


def no_network_text(why: str) -> str:
    """Return the line about an instance whose containers have no network of their own."""
    return (
        "Its containers share this machine's network, so only one instance can run at a time, and"
        f" none of the next revision beside it. {why}"
    )


def _taken(container: Launch) -> int | None:
    port = container.probe.port if container.probe else None
    return port if port and not is_free(port) else None


def _taken_text(port: int) -> str:
    return (
        f"Port {port} of this machine is in use. Without a network of its own, only one instance"
        " with sidecars can run at a time, and none of the next revision beside it."
    )
