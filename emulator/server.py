"""Puts the rooms together into one process.

Only this file knows all rooms: it gives each of them what it needs from others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from emulator import (
    certificate,
    checkout,
    front_door,
    pages,
    recorder,
    routes,
    store,
    tunnel,
)
from emulator.admission import urls as admission_urls
from emulator.admission.models import AdmissionPolicies
from emulator.artifacts import urls as artifact_urls
from emulator.artifacts.models import Artifacts
from emulator.artifacts.repositories import Repositories
from emulator.builds import urls as build_urls
from emulator.builds.models import Builds
from emulator.builds.push import Pusher
from emulator.builds.triggers import Triggers
from emulator.builds.work import Work
from emulator.checkout import Checkout
from emulator.cloud_storage import urls as storage_urls
from emulator.cloud_storage import xml_api
from emulator.cloud_storage.errors import body as storage_body
from emulator.cloud_storage.errors import is_ours as is_storage
from emulator.cloud_storage.models import Buckets
from emulator.errors import ApiError, invalid
from emulator.faults import urls as fault_urls
from emulator.faults.models import Faults
from emulator.faults.responses import clock
from emulator.faults.revisions import WithFaults
from emulator.faults.settings import Fault
from emulator.faults.spoil import middleware as spoil
from emulator.gemini import urls as gemini_urls
from emulator.identity import urls as identity_urls
from emulator.identity.guard import Guard
from emulator.identity.issuers import keys_of
from emulator.identity.models import Identity
from emulator.identity.principals import service_account
from emulator.instances.docker import DockerRuntime
from emulator.instances.mixed import MixedRuntime
from emulator.instances.pool import Instances
from emulator.instances.process import ProcessRuntime
from emulator.instances.runtime import Runtime
from emulator.instances.unpack import Limits
from emulator.logging import urls as logging_urls
from emulator.logging.models import Logs
from emulator.monitoring import urls as monitoring_urls
from emulator.monitoring.models import Metrics
from emulator.names import Key
from emulator.operations import Operations
from emulator.permissions import On
from emulator.ports import Ports
from emulator.projects import urls as project_urls
from emulator.projects.models import Projects
from emulator.registry import images
from emulator.registry import urls as registry_urls
from emulator.registry.models import Registry
from emulator.router.batches import RequestBatches
from emulator.router.router import Router
from emulator.routes import Handler
from emulator.run import urls as run_urls
from emulator.run.directory import Directory
from emulator.run.models import Admin
from emulator.run.reconcile import Reconciler
from emulator.run.resources import Resources
from emulator.run.starting import Starter
from emulator.secrets import urls as secret_urls
from emulator.secrets.models import Secrets
from emulator.secrets.variables import WithSecrets, check

_log = logging.getLogger("emulator")
_LIMITS = Limits()
_TOKEN_SECONDS = 600.0
# The layers of dependencies are kept between starts, and shared by all states.
_CACHE = Path(__file__).resolve().parent.parent / ".shipway" / "cache"


class PortInUse(Exception):
    """The port of the APIs is in use, or may not be used; the text names it."""


class Emulator:
    """A local Cloud Run with its state in one folder.

    Attributes:
        no_sandbox: Once it started, why processes do not run in namespaces; "" if they do.
        stop: Set when a request asks to end the process.

    Args:
        folder: The folder.
        idle: The number of seconds without a request after which an instance stops.
        metrics_delay: The number of seconds after which Cloud Monitoring shows an answer.
        runtime: What runs instances: "auto", packed images as processes and others in Docker;
            "process", also others without an operating system; "docker", which has to answer.
        sandboxed: Whether processes run in namespaces, where this machine allows it.
        enforced: Whether callers need permissions.
        limits: What an image may unpack to, for the runtime "process".
        hosts: Names of this machine that requests may be for, besides those of loopback.
        faults: The faults that are active from the start.
        cache: The folder for the layers of builds.
        checkout: The checkout that it belongs to; None for no one's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        idle: float,
        metrics_delay: float = 0.0,
        runtime: str = "auto",
        sandboxed: bool = True,
        enforced: bool = False,
        limits: Limits = _LIMITS,
        hosts: Collection[str] = (),
        faults: Collection[Fault] = (),
        cache: Path = _CACHE,
        checkout: Checkout | None = None,
    ) -> None:
        self.stop = asyncio.Event()
        self._checkout = checkout
        self._faults = Faults()
        for fault in faults:
            self._faults.start(fault)
        self._hosts = front_door.Hosts(hosts)
        self._enforced = enforced
        self._limits = limits
        self.folder = folder
        self._idle = idle
        self._metrics_delay = metrics_delay
        self._cache = cache
        self._runtime_name = runtime
        self._sandboxed = sandboxed
        self._lock = store.lock(folder)

    async def start(self, port: int) -> str:
        """Serve the APIs on 127.0.0.1.

        Args:
            port: The port; 0 chooses a free one.

        Returns:
            The base URL of the APIs.

        Raises:
            PortInUse: The port cannot be used.
            NoEngine: No Docker engine answers, and the runtime is "docker".
        """
        listener = _listener(port)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._logs = logs = Logs(self.folder / "logs")
        operations = Operations(store.Store(self.folder / "operations"))
        faults = self._faults
        projects = Projects(store.Store(self.folder / "projects"), faults)
        repositories = Repositories(store.Store(self.folder / "repositories"), projects.is_made)
        registry = Registry(self.folder / "registry", repositories)
        self._ports = Ports()
        documents = store.Store(self.folder / "run")
        resources = Resources(documents)
        services = Directory(resources)
        secrets = Secrets(self.folder / "secrets")
        exists = {On.REPOSITORY: repositories.exists, On.SECRET: secrets.exists}
        identity = Identity(
            self.folder / "identity",
            self.url,
            services=services,
            projects=projects,
            faults=faults,
            exists=lambda on, project, name: exists[on](project, name),
            keys_of=keys_of,
            enforced=self._enforced,
        )
        buckets = Buckets(self.folder / "cloud-storage", self.url, projects.is_made, projects.id_of)
        guard = Guard(identity, services, projects, faults, self.url, buckets.project)
        runtime = WithSecrets(
            WithFaults(await self._runtime(identity), faults),
            secrets,
            identity.may_read_secret,
        )

        def find_image(reference: str) -> images.Image:
            return images.read(registry, reference, runtime.platforms)

        self._instances = Instances(runtime, find_image, logs, self._idle)
        metrics = Metrics(self._metrics_delay)
        self._batches = RequestBatches(logs.requests, metrics.requests)
        self._router = Router(
            self._instances,
            self._ports,
            documents,
            identity.invoker.check,
            self._batches,
            self._hosts,
        )
        starter = Starter(
            self._instances,
            find_image,
            lambda launch: check(secrets, identity.may_read_secret, launch),
        )
        self._reconciler = Reconciler(resources, self._instances, self._router, starter)
        triggers = Triggers(store.Store(self.folder / "builds"))
        self._builds = Builds(
            store.Store(self.folder / "cloud-builds"),
            self._work(identity, registry, buckets),
            projects.id_of,
            self.url,
        )
        admin = Admin(
            resources,
            changed=self._reconciler.changed,
            removed=self._reconciler.removed,
            logs_url=self._logs_url,
        )
        await self._reconciler.resume()
        secret = front_door.new_secret(self.folder)
        door = front_door.FrontDoor(self._hosts, secret)
        watching = [clock(faults), spoil(faults.calls), *recorder.middlewares()]
        storage = web.Application(
            middlewares=[
                front_door.FrontDoor(front_door.OneHost(tunnel.HOST), secret).check,
                *watching,
                xml_api.errors,
                guard.check,
            ]
        )
        storage.on_response_prepare.append(front_door.protect)
        routes.add(storage, xml_api.routes(buckets))
        context = certificate.server_context(tunnel.HOST, self.folder)
        self._tunnel = tunnel.Tunnel(storage, context)
        await self._tunnel.start()
        self.application = application = web.Application(
            middlewares=[
                self._tunnel.connect,
                door.check,
                *watching,
                _errors,
                guard.check,
            ],
            client_max_size=16 * 1024**2,
        )
        application.on_response_prepare.append(front_door.protect)
        if self._checkout:
            application.on_response_prepare.append(self._checkout.sign)
        routes.add(
            application,
            [
                *build_urls.routes(triggers, self._builds),
                *logging_urls.routes(logs, self._batches.flush),
                *monitoring_urls.routes(metrics, self._batches.flush),
                *registry_urls.routes(registry),
                *identity_urls.routes(identity, operations),
                *artifact_urls.routes(
                    Artifacts(registry, repositories),
                    repositories,
                    operations,
                    identity.forget_repository,
                ),
                *run_urls.routes(admin),
                *secret_urls.routes(secrets, identity.forget_secret),
                *project_urls.routes(projects, operations, identity.policies.own),
                *admission_urls.routes(AdmissionPolicies(store.Store(self.folder / "admission"))),
                *gemini_urls.routes(),
                *storage_urls.routes(buckets),
                *fault_urls.routes(faults),
                *pages.routes(resources, logs, self.url),
                *checkout.routes(self.stop),
            ],
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        return self.url

    async def _runtime(self, identity: Identity) -> Runtime:
        here = urlsplit(self.url)
        assert here.port
        processes = ProcessRuntime(
            self.folder / "instances",
            self._ports,
            identity,
            self._limits,
            api_port=here.port,
            sandboxed=self._sandboxed,
        )
        self.no_sandbox = processes.no_sandbox

        def token() -> str:
            return identity.owner_token(_TOKEN_SECONDS) if self._enforced else ""

        mixed = MixedRuntime(
            processes,
            lambda: DockerRuntime.open(self.folder, self._ports, here.netloc, token),
            self.folder / "instances" / "docker-used",
            prefer_processes=self._runtime_name == "process",
        )
        if self._runtime_name == "docker":
            await mixed.docker()
        return mixed

    def _work(self, identity: Identity, registry: Registry, buckets: Buckets) -> Work:
        access = identity.access

        def on_bucket(email: str, permission: str, bucket: str) -> bool:
            chain = access.of_bucket(buckets.project(bucket), bucket)
            return access.may(service_account(email), permission, chain)

        def on_image(email: str, permission: str, image: str) -> bool:
            return access.may_on_image(service_account(email), permission, image)

        def token(email: str) -> str:
            if not self._enforced:
                return ""
            if not email:
                return identity.owner_token(_TOKEN_SECONDS)
            return identity.access_token(email, _TOKEN_SECONDS)

        pusher = Pusher(registry, self.url.removeprefix("http://"), on_image, token)
        return Work(self.folder / "building", self._cache, buckets, pusher, on_bucket)

    def _logs_url(self, revision: Key) -> str:
        return f"{self.url}/logs/{revision.path}"

    async def close(self) -> None:
        """Stop serving, and stop every instance. The state stays."""
        self._faults.calls.close()
        self._builds.close()
        await asyncio.gather(self._runner.cleanup(), self._tunnel.close())
        await self._reconciler.close()
        await asyncio.gather(self._router.close(), self._instances.close())
        self._batches.flush()
        self._logs.flush()
        self._ports.close()
        os.close(self._lock)


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PortInUse(f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}.") from error
    return listener


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors as Google's APIs do; the registry has an error format of its own."""
    try:
        return await handler(request)
    except ApiError as error:
        if is_storage(request.path):
            return web.json_response(storage_body(error.code, error.message), status=error.code)
        headers = {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'}
        refused = error.status == "UNAUTHENTICATED"
        return web.json_response(
            error.body(), status=error.code, headers=headers if refused else None
        )
    except web.HTTPException as error:
        if request.path.startswith("/v2/") or error.status < 400:
            raise
        message = f"{request.method} {request.path}: {error.reason}"
        if is_storage(request.path):
            return web.json_response(storage_body(error.status, message), status=error.status)
        status = "NOT_FOUND" if error.status == 404 else "INVALID_ARGUMENT"
        body = {"error": {"code": error.status, "message": message, "status": status}}
        return web.json_response(body, status=error.status)
    except web.RequestPayloadError:
        refusal = invalid("The request body is not what its headers say.")
        return web.json_response(refusal.body(), status=refusal.code)
    except Exception:
        _log.exception("%s %s", request.method, request.path)
        return web.json_response(
            ApiError("INTERNAL", "Internal error encountered.").body(), status=500
        )
