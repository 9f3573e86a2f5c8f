"""What it takes to start an instance of a revision, free of how the Admin API writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from emulator.names import Key


@dataclass(frozen=True)
class Probe:
    """A startup or liveness probe; times are in seconds. The defaults are the startup probe's.

    `kind` is "TCP", "HTTP" or "GRPC" (probed as TCP). A probe of the container's port goes to where
    a local instance really listens.
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
        """Seconds from the start until the instance has failed to start."""
        return self.initial_delay + self.period * self.threshold


class Bounds(NamedTuple):
    """The fewest and the most instances that a revision has."""

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


@dataclass(frozen=True)
class Launch:
    """One revision, as its instances see it.

    `image` is a reference by digest; `command` and `args` are the manifest's, or None.
    `concurrency` is how many requests one instance answers at a time. `memory` is in bytes, `cpu`
    in CPUs. `env` holds the values of `secrets`, too, once they were read: it is never shown.
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
    probe: Probe = Probe()
    service_account: str = ""
    liveness: Probe | None = None
    concurrency: int = 80
    bounds: Bounds = _UP_TO_100
    memory: int = 512 * 1024**2
    cpu: float = 1.0
    request_timeout: float = 300.0

    def system_variables(self) -> dict[str, str]:
        """The variables that Cloud Run sets in every container, but for PORT.

        Source: https://cloud.google.com/run/docs/container-contract#env-vars.
        """
        return {
            "K_SERVICE": self.service,
            "K_REVISION": self.revision.name,
            "K_CONFIGURATION": self.service,
        }


def image_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The `config` object of an OCI image configuration (Env, Entrypoint, Cmd, WorkingDir …).

    Source: https://github.com/opencontainers/image-spec/blob/main/config.md#properties.
    """
    return config.get("config") or {}
