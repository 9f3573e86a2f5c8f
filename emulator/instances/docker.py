"""The docker runtime: an instance is a container of the image itself, run by a Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from emulator.instances import probes, together
from emulator.instances.docker_place import DockerPlace
from emulator.instances.engine import Engine, EngineError, NoEngine, address
from emulator.instances.launch import Launch
from emulator.instances.lines import Lines, ending, of_shell
from emulator.instances.runtime import Image, Images, Instance, architecture, on_a_port
from emulator.instances.start_failures import image_not_pulled
from emulator.logging.models import RevisionLog
from emulator.ports import Ports
from emulator.registry.names import split_reference

_STATE, _REVISION = "dev.shipway.state", "dev.shipway.revision"
_AGAIN = 1.0
_NO_VOLUMES: Mapping[str, str] = MappingProxyType({})
_GONE = (EngineError, aiohttp.ClientError, OSError)


class DockerInstance:
    """A container. The engine forwards `port` of 127.0.0.1 to the port that it listens on."""

    forwarded = True

    def __init__(self, engine: Engine, container: str, port: int, launch: Launch) -> None:
        self.port = port
        self.ways: Mapping[int, int] = {}
        self.url = f"http://127.0.0.1:{port}"
        self.exited = asyncio.Event()
        self.container = container
        self._engine = engine
        self._launch = launch
        self._stopping = False
        self._watch: asyncio.Task[None] | None = None

    async def start(self, log: RevisionLog) -> None:
        """Start the container; raises EngineError, aiohttp.ClientError."""
        try:
            attached = await self._engine.attach(self.container)
            await self._engine.call("POST", f"/containers/{self.container}/start")
        except BaseException:
            await asyncio.shield(self._remove())
            raise
        self._watch = asyncio.create_task(self._watched(attached, log))

    async def _watched(self, attached: aiohttp.ClientResponse, log: RevisionLog) -> None:
        """Log the output until the container ends, and how it ended."""
        streams = {name: Lines(name, log) for name in ("stdout", "stderr")}
        async for name, piece in self._engine.output(attached):
            streams[name].feed(piece)
        for stream in streams.values():
            stream.close()
        with contextlib.suppress(*_GONE):
            await self._engine.call("POST", f"/containers/{self.container}/wait")
            found = await self._engine.call("GET", f"/containers/{self.container}/json")
            state = found["State"]
            if state["OOMKilled"]:
                log.system("ERROR", _out_of_memory(self._launch.memory))
            if state["OOMKilled"] or not self._stopping:
                log.system(*ending(of_shell(state["ExitCode"])))
        await self._remove()
        self.exited.set()

    async def stop(self, grace: float) -> None:
        """End the container: SIGTERM, and SIGKILL after `grace` seconds."""
        self._stopping = True
        with contextlib.suppress(*_GONE):
            await self._engine.call(
                "POST", f"/containers/{self.container}/stop", t=str(round(grace))
            )
        if self._watch is not None:
            await asyncio.shield(self._watch)

    async def _remove(self) -> None:
        with contextlib.suppress(*_GONE):
            await self._engine.call("DELETE", f"/containers/{self.container}", force="1", v="1")


class DockerRuntime:
    """Runs instances as containers; created by `open`.

    They have no metadata server: the engine's network does not reach this machine's loopback.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        ports: Ports,
        registry: str,
        token: Callable[[], str],
        host: dict[str, Any],
    ) -> None:
        machine = host.get("Architecture", "")
        self.platforms: Collection[str] = frozenset(
            {"linux/amd64", f"linux/{architecture(machine)}"}
        )
        self._cpus = float(host["NCPU"])
        self._engine = engine
        self._state = str(folder.resolve())
        self._ports = ports
        self._registry = registry
        self._token = token
        self._memory_watch = asyncio.create_task(self._watch_memory())

    @classmethod
    async def open(
        cls, folder: Path, ports: Ports, registry: str, token: Callable[[], str]
    ) -> DockerRuntime:
        """Connect to the engine, and remove the containers that an earlier emulator left.

        Args:
            folder: The state folder.
            ports: Where free ports come from.
            registry: HOST:PORT of the registry that has the images.
            token: Returns an access token for it; "" if it needs none.

        Raises:
            NoEngine: No engine answers.
        """
        engine = Engine(address())
        try:
            host = await engine.information()
            await _end_leftovers(engine, str(folder.resolve()))
        except (NoEngine, *_GONE) as error:
            await engine.close()
            raise error if isinstance(error, NoEngine) else NoEngine(str(error)) from error
        return cls(engine, folder, ports, registry, token, host)

    async def start(self, launch: Launch, images: Images, log: RevisionLog) -> Instance:
        """Start an instance and wait until it takes requests; raises StartFailed."""
        references = {one.image: await self._pulled(one, images) for one in launch.containers}
        if launch.sidecars or launch.mounts:
            place = DockerPlace(self, launch, images, references, self._ports)
            return await together.start(launch, place, log)
        return await on_a_port(
            self._ports,
            lambda port: self._try(
                launch, images[launch.image], references[launch.image], port, log
            ),
            launch.container_port,
        )

    async def _pulled(self, container: Launch, images: Images) -> str:
        """Return a container's image as the engine names it, once it has it; raises StartFailed."""
        image = images[container.image]
        reference = f"{self._registry}/{split_reference(container.image)[0]}@{image.digest}"
        try:
            await self._engine.pull(reference, image.platform, self._token())
        except _GONE as error:
            raise image_not_pulled(container.image, error) from error
        return reference

    async def _try(
        self, launch: Launch, image: Image, reference: str, port: int, log: RevisionLog
    ) -> DockerInstance | None:
        """Start on `port`; returns None if the instance does not listen there."""
        began = time.monotonic()
        try:
            ways = {launch.container_port: port}
            instance = await self.run(launch, image, reference, port, ways, log)
        except _GONE as error:
            log.system("ERROR", f"The container cannot be started: {error}")
            return None
        passing = probes.passes(launch, instance)
        return instance if await probes.starts(launch, instance, passing, began, log) else None

    async def run(
        self,
        container: Launch,
        image: Image,
        reference: str,
        port: int,
        ways: Mapping[int, int],
        log: RevisionLog,
        *,
        beside: str = "",
        volumes: Mapping[str, str] = _NO_VOLUMES,
    ) -> DockerInstance:
        """Create and start a container.

        Args:
            container: The container.
            image: Its image.
            reference: The image as the engine names it.
            port: The port of 127.0.0.1 that leads to the instance.
            ways: Ports inside that ports of 127.0.0.1 lead to.
            log: Its log.
            beside: The container whose network it shares, which has the ways then.
            volumes: The engine's volumes by the manifest's names.

        Raises:
            EngineError, aiohttp.ClientError, OSError: The engine cannot.
        """
        wanted = self._container(container, reference, ways)
        host = wanted["HostConfig"]
        if beside:
            host["NetworkMode"] = f"container:{beside}"
            del wanted["ExposedPorts"], host["PortBindings"]
        host["Binds"] = [
            f"{volumes[mount.volume]}:{mount.path}:{'ro' if mount.read_only else 'rw'}"
            for mount in container.mounts
            if mount.volume in volumes
        ]
        name = f"shipway-{container.revision.name}-{secrets.token_hex(3)}"
        made = await self._engine.call(
            "POST", "/containers/create", wanted, name=name, platform=image.platform
        )
        instance = DockerInstance(self._engine, made["Id"], port, container)
        await instance.start(log)
        instance.ways = ways
        return instance

    async def new_volume(self) -> str:
        """Return the name of a new volume in memory; raises like `run`.

        Source: https://docs.docker.com/reference/cli/docker/volume/create/#opt (tmpfs).
        """
        options = {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777"}
        wanted = {"Driver": "local", "DriverOpts": options, "Labels": {_STATE: self._state}}
        made: dict[str, str] = await self._engine.call("POST", "/volumes/create", wanted)
        return made["Name"]

    async def remove_volume(self, name: str) -> None:
        """Remove a volume that no container uses any more."""
        with contextlib.suppress(*_GONE):
            await self._engine.call("DELETE", f"/volumes/{name}", force="1")

    def _container(self, launch: Launch, reference: str, ways: Mapping[int, int]) -> dict[str, Any]:
        """Return the container to create: the image with the manifest's settings."""
        variables = [*launch.env, *launch.system_variables().items()]
        if launch.container_port:
            variables.append(("PORT", str(launch.container_port)))
        asked: dict[str, Any] = {
            "Image": reference,
            "Env": [f"{name}={value}" for name, value in variables],
            "Entrypoint": launch.command,
            "Cmd": launch.args,
            "WorkingDir": launch.working_dir,
            # Cloud Run does not look at the image's HEALTHCHECK.
            "Healthcheck": {"Test": ["NONE"]},
            "ExposedPorts": {f"{inside}/tcp": {} for inside in ways},
            "Labels": {_STATE: self._state, _REVISION: launch.revision.path},
            "HostConfig": {
                "PortBindings": {
                    f"{inside}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
                    for inside, port in ways.items()
                },
                "Memory": launch.memory,
                "MemorySwap": launch.memory,
                # An engine refuses more than it has.
                "NanoCpus": int(min(launch.cpu, self._cpus) * 1e9),
                "LogConfig": {"Type": "none"},
            },
        }
        return {name: value for name, value in asked.items() if value is not None}

    async def _watch_memory(self) -> None:
        """End each instance in which any process was killed for its use of memory.

        Cloud Run ends the whole instance; an engine would leave it alone while its first process
        lives on, as that of a server with worker processes does.
        """
        filters = json.dumps({"event": ["oom"], "label": [f"{_STATE}={self._state}"]})
        while True:
            with contextlib.suppress(*_GONE):
                async for event in self._engine.lines("GET", "/events", filters=filters):
                    with contextlib.suppress(EngineError):  # it has ended
                        await self._engine.call("POST", f"/containers/{event['Actor']['ID']}/kill")
            await asyncio.sleep(_AGAIN)

    async def close(self) -> None:
        """Close the connection to the engine, after every instance was stopped."""
        self._memory_watch.cancel()
        await self._engine.close()


async def _end_leftovers(engine: Engine, state: str) -> None:
    filters = json.dumps({"label": [f"{_STATE}={state}"]})
    for left in await engine.call("GET", "/containers/json", all="1", filters=filters):
        await engine.call("DELETE", f"/containers/{left['Id']}", force="1", v="1")
    volumes = await engine.call("GET", "/volumes", filters=filters)
    for volume in volumes.get("Volumes") or []:
        await engine.call("DELETE", f"/volumes/{volume['Name']}", force="1")


def _out_of_memory(limit: int) -> str:
    """Return Cloud Run's line. The kernel does not report the requested memory."""
    mib = limit // 1024**2
    return (
        f"Memory limit of {mib} MiB exceeded with {mib} MiB used. Consider increasing the memory "
        "limit, see https://cloud.google.com/run/docs/configuring/memory-limits"
    )
