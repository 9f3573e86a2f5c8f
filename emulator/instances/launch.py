"""The settings to start an instance with, independent of the Admin API's format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from emulator.names import Key


@dataclass(frozen=True)
class Probe:
    """A startup or liveness probe. The default values are the default startup probe's.

    `kind` is "TCP", "HTTP" or "GRPC" (probed as TCP). Times are in seconds. A probe of the
    container's port goes to the port that the local instance listens on.
    """

    kind: str = "TCP"
    port: int = 8080
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    initial_delay: int = 0
    period: int = 240
    timeout: int = 240
    threshold: int = 1
    is_default: bool = True

    @property
    def budget(self) -> float:
        """Seconds after which an instance has failed to start."""
        return self.initial_delay + self.period * self.threshold


class Bounds(NamedTuple):
    """The smallest and the largest number of a revision's instances."""

    minimum: int
    maximum: int


_UP_TO_100 = Bounds(0, 100)


@dataclass(frozen=True)
class SecretVariable:
    """An environment variable `name` with a secret's value.

    `secret` is `projects/NUMBER/secrets/NAME`, `version` a number or `latest`, and `field` the
    place in the Service that asks for it, as Cloud Run's messages write it.
    """

    name: str
    secret: str
    version: str
    field: str


class Mount(NamedTuple):
    """A volume in memory, by its name, and the path where a container sees it."""

    volume: str
    path: str
    read_only: bool


@dataclass(frozen=True)
class Launch:
    """A revision, as far as its instances need it: the container that takes the requests.

    Attributes:
        image: A reference, by digest once it was resolved.
        container: The container's name.
        command: The manifest's, or None.
        args: The manifest's, or None.
        env: The variables; with the values of `secrets` once they were read. It is never shown.
        container_port: The port that gets the requests; 0 for a sidecar.
        probe: The startup probe; None for a sidecar without one.
        concurrency: How many requests an instance answers at a time.
        memory: In bytes.
        cpu: In CPUs.
        mounts: The volumes that it shares with the instance's other containers.
        depends_on: The containers of the instance that must have started before it starts.
        sidecars: The other containers of each instance, which have no sidecars themselves.
    """

    revision: Key
    service: str
    image: str
    container: str = ""
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    working_dir: str | None = None
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[SecretVariable, ...] = ()
    container_port: int = 8080
    probe: Probe | None = Probe()
    service_account: str = ""
    liveness: Probe | None = None
    concurrency: int = 80
    bounds: Bounds = _UP_TO_100
    memory: int = 512 * 1024**2
    cpu: float = 1.0
    request_timeout: float = 300.0
    mounts: tuple[Mount, ...] = ()
    depends_on: tuple[str, ...] = ()
    sidecars: tuple[Launch, ...] = ()

    @property
    def containers(self) -> tuple[Launch, ...]:
        """The containers of an instance, this one first."""
        return (self, *self.sidecars)

    @property
    def seconds_to_start(self) -> float:
        """The time after which an instance has certainly started, or failed to."""
        return sum(one.probe.budget for one in self.containers if one.probe)

    def system_variables(self) -> dict[str, str]:
        """Return the variables that Cloud Run sets in every container.

        Only the container that takes the requests also gets PORT.

        Source: https://cloud.google.com/run/docs/container-contract#env-vars.
        """
        return {
            "K_SERVICE": self.service,
            "K_REVISION": self.revision.name,
            "K_CONFIGURATION": self.service,
        }


def image_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the `config` of an OCI image configuration (Env, Entrypoint, Cmd, WorkingDir …).

    Source: https://github.com/opencontainers/image-spec/blob/main/config.md#properties.
    """
    return config.get("config") or {}
