"""Environment variables whose values are secrets: checked at deployment, read as instances start.

Source: https://cloud.google.com/run/docs/configuring/services/secrets ("How secrets are checked at
deployment and runtime"). The reason SecretsAccessCheckFailed is documented; the messages are as
users of Cloud Run quote them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from emulator.errors import ApiError
from emulator.instances.launch import Launch, SecretVariable, StartFailed
from emulator.instances.runtime import Image, Instance, Runtime
from emulator.logging.models import RevisionLog
from emulator.secrets.models import MayAccess, Secrets

_REASON = "SecretsAccessCheckFailed"


def check(secrets: Secrets, may_access: MayAccess, launch: Launch) -> None:
    """Raise StartFailed unless every secret of a revision is there and may be read."""
    for variable in launch.secrets:
        _value(secrets, may_access, launch, variable)


class WithSecrets:
    """A runtime that gives each instance the values of its secrets, as they are when it starts.

    `may_access(secret, service account)` says who may read what.
    """

    def __init__(self, runtime: Runtime, secrets: Secrets, may_access: MayAccess) -> None:
        self._runtime = runtime
        self._secrets = secrets
        self._may_access = may_access

    @property
    def platforms(self) -> Collection[str]:
        """The platforms of the runtime inside."""
        return self._runtime.platforms

    async def start(self, launch: Launch, image: Image, log: RevisionLog) -> Instance:
        """Start an instance; raises StartFailed, also for a secret that cannot be read."""
        if launch.secrets:
            values = tuple(
                (variable.name, _value(self._secrets, self._may_access, launch, variable))
                for variable in launch.secrets
            )
            launch = dataclasses.replace(launch, env=(*launch.env, *values))
        return await self._runtime.start(launch, image, log)

    async def close(self) -> None:
        """Close the runtime inside."""
        await self._runtime.close()


def _value(
    secrets: Secrets, may_access: MayAccess, launch: Launch, variable: SecretVariable
) -> str:
    where = f"{variable.field}.value_from.secret_key_ref.name"
    full = f"{variable.secret}/versions/{variable.version}"
    if not may_access(variable.secret, launch.service_account):
        raise StartFailed(
            _REASON,
            f"{where}: Permission denied on secret: {full} for Revision service account "
            f"{launch.service_account}. The service account used must be granted the 'Secret "
            "Manager Secret Accessor' role (roles/secretmanager.secretAccessor) at the secret, "
            "project or higher level.",
        )
    _, project, _, name = variable.secret.split("/")
    try:
        value = secrets.value(project, name, variable.version)[1]
        text = value.decode()
        if "\0" in text:
            raise UnicodeError
        return text
    except ApiError:
        raise StartFailed(_REASON, f"{where}: Secret {full} was not found") from None
    except UnicodeError:
        # Without the value, or any part of it.
        raise StartFailed(_REASON, f"{where}: Secret {full} is not text") from None
