"""Environment variables whose values are secrets: checked at deployment, read at each start.

Source: https://cloud.google.com/run/docs/configuring/services/secrets ("How secrets are checked at
deployment and runtime").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from emulator.errors import ApiError
from emulator.instances.launch import Launch, SecretVariable
from emulator.instances.runtime import Images, Instance, Runtime
from emulator.instances.start_failures import (
    secret_not_allowed,
    secret_not_found,
    secret_not_text,
)
from emulator.logging.models import RevisionLog
from emulator.secrets.models import Secrets

# Whether a secret ("projects/NUMBER/secrets/NAME") may be read by a service account.
MayAccess = Callable[[str, str], bool]


def check(secrets: Secrets, may_access: MayAccess, launch: Launch) -> None:
    """Raise StartFailed unless every secret of a revision exists and may be read."""
    for container in launch.containers:
        for variable in container.secrets:
            _value(secrets, may_access, launch, variable)


class WithSecrets:
    """A runtime that gives each instance the current values of its secrets when it starts.

    Args:
        runtime: The runtime.
        secrets: The secrets.
        may_access: Returns whether a service account may read a secret.
    """

    def __init__(self, runtime: Runtime, secrets: Secrets, may_access: MayAccess) -> None:
        self._runtime = runtime
        self._secrets = secrets
        self._may_access = may_access

    @property
    def platforms(self) -> Collection[str]:
        """The platforms of the wrapped runtime."""
        return self._runtime.platforms

    async def start(self, launch: Launch, images: Images, log: RevisionLog) -> Instance:
        """Start an instance; raise StartFailed, also for a secret that cannot be read."""
        sidecars = tuple(self._with_values(sidecar) for sidecar in launch.sidecars)
        launch = dataclasses.replace(self._with_values(launch), sidecars=sidecars)
        return await self._runtime.start(launch, images, log)

    def _with_values(self, container: Launch) -> Launch:
        values = (
            (variable.name, _value(self._secrets, self._may_access, container, variable))
            for variable in container.secrets
        )
        return dataclasses.replace(container, env=(*container.env, *values))

    async def close(self) -> None:
        """Close the wrapped runtime."""
        await self._runtime.close()


def _value(
    secrets: Secrets, may_access: MayAccess, launch: Launch, variable: SecretVariable
) -> str:
    field = f"{variable.field}.value_from.secret_key_ref.name"
    version = f"{variable.secret}/versions/{variable.version}"
    if not may_access(variable.secret, launch.service_account):
        raise secret_not_allowed(field, version, launch.service_account)
    _, project, _, name = variable.secret.split("/")
    try:
        value = secrets.value(project, name, variable.version)[1]
        text = value.decode()
        if "\0" in text:
            raise UnicodeError
        return text
    except ApiError:
        raise secret_not_found(field, version) from None
    except UnicodeError:
        # The cause is cut off, too: its message would hold bytes of the value.
        raise secret_not_text(field, version) from None
