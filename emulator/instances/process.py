"""The process runtime: an instance is the image's command, run as processes of this machine."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from emulator.instances import fixed_ports, network, probes, shared_place, sockets, together
from emulator.instances.command import NoCommand, command
from emulator.instances.fixed_ports import FixedPort
from emulator.instances.launch import Launch, Probe, image_settings
from emulator.instances.network import NoNetwork
from emulator.instances.process_instance import ProcessInstance
from emulator.instances.runtime import Image, Images, Instance, architecture, on_a_port
from emulator.instances.sandbox import Bind
from emulator.instances.shared_place import SharedPlace
from emulator.instances.spawn import Action, Spawner, Work
from emulator.instances.start_failures import never_listened
from emulator.instances.unpack import Limits
from emulator.instances.unpacked import UnpackedImages
from emulator.logging.models import RevisionLog
from emulator.metadata.server import Identity, MetadataServer, Tokens
from emulator.packed import other_interpreter
from emulator.ports import Ports

# Where client libraries find the local APIs. Google has no variable for secrets: an app passes its
# value to the library, which has none either. google-genai reads the other one itself.
_ENDPOINTS = ("SECRET_MANAGER_ENDPOINT", "GOOGLE_VERTEX_BASE_URL")
_HTTP = 80
_TRIES = 2


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
        self._ports = ports
        self._api_port = api_port
        # Images, by digest, that listen on their container port whatever $PORT says.
        self._fixed: set[str] = set()
        self._spawner = Spawner(folder, sandboxed=sandboxed)
        self.no_sandbox = self._spawner.no_sandbox
        self._no_network = network.missing(self.no_sandbox)
        self._spawner.end_leftovers(folder / "images")

    async def start(self, launch: Launch, images: Images, log: RevisionLog) -> Instance:
        """Start an instance and wait until it takes requests; raises StartFailed."""
        if launch.sidecars:
            return await self._start_together(launch, images, log)
        work = await self._work(launch, images[launch.image], log)
        image = images[launch.image].digest
        if fixed_ports.is_named(work.run.argv, launch.container_port):
            self._fixed.add(image)
        return await self._on_a_port(work, image)

    async def _work(self, launch: Launch, image: Image, log: RevisionLog) -> Work:
        """Return what a container is started from; raises StartFailed."""
        try:
            if await self.has_system(launch, image):
                raise NoCommand("This image has an operating system of its own: it needs Docker.")
            root = await self._images.of(image, launch.image)
            here = f"http://127.0.0.1:{self._api_port}"
            told = replace(launch, env=(*((name, here) for name in _ENDPOINTS), *launch.env))
            sandboxed = self._spawner.sandbox is not None
            run = command(told, image, root, sandboxed=sandboxed)
            if not sandboxed:
                Path(run.cwd).mkdir(parents=True, exist_ok=True)
        except (NoCommand, OSError) as error:
            log.system("ERROR", str(error))
            raise never_listened(launch.container_port, str(error)) from error
        if other := await asyncio.to_thread(other_interpreter, image.config):
            log.system("WARNING", other)
        user = image_settings(image.config).get("User") or ""
        return Work(launch, root, run, user, log)

    async def _start_together(self, launch: Launch, images: Images, log: RevisionLog) -> Instance:
        """Start an instance of several containers, in a network of its own if there are any."""
        works = {
            one.container: await self._work(one, images[one.image], log.of(one.container))
            for one in launch.containers
        }
        place = SharedPlace(launch, works, self._spawner, self._ports, self._metadata(launch))
        for attempt in range(1, _TRIES + 1):
            if self._no_network:
                break
            try:
                await place.open_network([range(self._api_port, self._api_port + 1)])
                break
            except NoNetwork as error:
                if attempt == _TRIES:  # before, a port may have been taken in between
                    self._no_network = f"pasta gives it no network of its own ({error})."
            except BaseException:
                await place.close()
                raise
        if self._no_network:
            log.system("WARNING", shared_place.no_network_text(self._no_network))
        return await together.start(launch, place, log)

    def _metadata(self, launch: Launch) -> MetadataServer:
        """Return a metadata server for one instance, which is not started."""
        who = Identity(launch.revision.project, launch.revision.region, launch.service_account)
        return MetadataServer(who, self._tokens)

    async def _on_a_port(self, work: Work, image: str) -> ProcessInstance:
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

    async def _try(self, work: Work, port: int, *, own_network: bool) -> ProcessInstance | None:
        """Start on `port`; returns None if the instance does not listen there.

        Raises:
            FixedPort: It listens on its container's port, or tried to, whatever $PORT says.
            NoNetwork: It gets no network of its own.
            StartFailed: It listens on another port.
        """
        launch, log = work.launch, work.log
        began = time.monotonic()
        metadata = self._metadata(launch)
        await metadata.start(named=self._spawner.sandbox is not None and not own_network)
        try:
            instance = await self._spawn(work, port, metadata, own_network=own_network)
        except BaseException:
            await metadata.close()
            raise
        passing = self._passes(work, instance, own_network=own_network)
        return instance if await probes.starts(launch, instance, passing, began, log) else None

    async def _passes(self, work: Work, instance: ProcessInstance, *, own_network: bool) -> bool:
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
        self, work: Work, port: int, metadata: MetadataServer, *, own_network: bool
    ) -> ProcessInstance:
        inside = work.launch.container_port if own_network else port
        ours = {
            "PORT": str(inside),
            "GCE_METADATA_HOST": metadata.host,
            "GCE_METADATA_IP": metadata.host,
        }
        on_exit: list[Action] = [metadata.close]
        binds: list[Bind] = []
        if work.launch.mounts:
            folder = self._spawner.folder()
            binds = shared_place.binds(work, folder)
            on_exit.append(partial(asyncio.to_thread, shutil.rmtree, folder, ignore_errors=True))
        if not own_network:
            return await self._spawner.start(
                work, port, ours, on_exit, named=metadata.named, binds=binds
            )
        # Port 80 of its own network leads to the metadata server, unless the app listens there.
        named = "" if inside == _HTTP else "127.0.0.1"
        reading, holding = os.pipe()
        try:
            more = ["--unshare-net", "--block-fd", str(reading)]
            instance = await self._spawner.start(
                work, port, ours, on_exit, named=named, binds=binds, more=more, block=reading
            )
            try:
                reachable = [range(p, p + 1) for p in (self._api_port, metadata.port)]
                connection = await network.connect(
                    await network.first_inside(instance.pid, instance.exited),
                    {port: inside}, [*reachable, *self._ports.blocks()],
                    {_HTTP: metadata.port} if named else {},
                )  # fmt: skip
            except BaseException:
                await asyncio.shield(instance.stop(grace=0.0))
                raise
            instance.on_exit.append(connection.close)
            return instance
        finally:
            os.close(holding)

    async def has_system(self, launch: Launch, image: Image) -> bool:
        """Return whether an image has an operating system of its own; raises StartFailed."""
        root = await self._images.of(image, launch.image)
        return (root / "etc/os-release").exists() or (root / "usr/lib/os-release").exists()

    async def close(self) -> None:
        """Do nothing: instances have released everything."""


async def _probed(launch: Launch, instance: ProcessInstance, *, own_network: bool) -> bool:
    """Return whether an instance passes its startup probe."""
    inner = sockets.first_child(instance.pid) if own_network else None
    if inner:
        budget = (launch.probe or Probe()).budget
        if not await network.listened(inner, launch.container_port, instance.exited, budget):
            return False
    return await probes.passes(launch, instance)
