"""Read and check a Cloud Build file as Cloud Build does before it starts the build. Pure.

Source: https://cloud.google.com/build/docs/build-config-file-schema, the discovery document
`cloudbuild.v1`, and the validation of Google's own cloud-build-local.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError
from scripts.rehearse.cloudbuild.substitutions import Substitutions

WORKSPACE = "/workspace"
HOME = "/builder/home"
_RESERVED = (WORKSPACE, HOME, "/var/run/docker.sock", "/builder/outputs")
_MOST_STEPS = 300
_LONGEST = 24 * 3600.0
_DEFAULT_TIMEOUT = 3600.0


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A volume that steps share: empty at first, deleted with the build."""

    name: str
    path: str


class Step(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """One step of the file."""

    name: str
    args: list[str] = []
    env: list[str] = []
    dir: str = ""
    id: str = ""
    wait_for: list[str] = []
    entrypoint: str = ""
    secret_env: list[str] = []
    volumes: list[Volume] = []
    timeout: str = ""
    script: str = ""
    automap_substitutions: bool | None = None
    allow_failure: bool = False
    allow_exit_codes: list[int] = []

    @property
    def seconds(self) -> float | None:
        """Its timeout in seconds; None for the build's own."""
        return seconds(self.timeout) if self.timeout else None


class Options(
    msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True
):
    """The build's options; a rehearsal ignores those about the machine."""

    env: list[str] = []
    secret_env: list[str] = []
    volumes: list[Volume] = []
    automap_substitutions: bool = False
    substitution_option: str = ""
    dynamic_substitutions: bool = False
    logging: str = ""
    machine_type: str = ""
    disk_size_gb: int | str = ""
    pool: dict[str, str] = {}
    log_streaming_option: str = ""
    default_logs_bucket_behavior: str = ""
    requested_verify_option: str = ""
    source_provenance_hash: list[str] = []
    enable_structured_logging: bool = False


class ManagedSecret(
    msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True
):
    """The version of a secret, and the variable that gets its value."""

    version_name: str
    env: str


class Secrets(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The sources of secret variables; a rehearsal has no Cloud KMS."""

    secret_manager: list[ManagedSecret] = []
    inline: list[Any] = []


class Build(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A build after its substitutions."""

    steps: list[Step]
    timeout: str = ""
    queue_ttl: str = ""
    logs_bucket: str = ""
    options: Options = Options()
    substitutions: dict[str, str] = {}
    tags: list[str] = []
    service_account: str = ""
    available_secrets: Secrets = Secrets()
    images: list[str] = []
    artifacts: dict[str, Any] = {}

    @property
    def seconds(self) -> float:
        """Its timeout in seconds."""
        return seconds(self.timeout) if self.timeout else _DEFAULT_TIMEOUT

    @property
    def account(self) -> str:
        """The email of the service account that it runs as."""
        return self.service_account.rpartition("/")[2]

    def after(self, index: int) -> set[int]:
        """Return the steps that a step waits for: those it names, or all before it; "-" is none."""
        named = self.steps[index].wait_for
        if not named:
            return set(range(index))
        ids = {step.id: number for number, step in enumerate(self.steps) if step.id}
        return {ids[name] for name in named if name != "-"}

    def title(self, index: int) -> str:
        """Return the name that a step has in Cloud Build's log."""
        step = self.steps[index]
        return step.id or f"Step #{index}"


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A build, and its substitutions as environment variables."""

    build: Build
    variables: dict[str, str]


def load(root: Path, file: str, built_in: Mapping[str, str], given: Mapping[str, str]) -> Loaded:
    """Read a build file, apply its substitutions, and check it.

    Args:
        root: The repository.
        file: The build file's path in it.
        built_in: The substitutions that Cloud Build fills in.
        given: The substitutions of the trigger or the user.

    Raises:
        UsageError: Cloud Build would reject the file.
    """
    read = YamlFile(root / file, file)
    if not isinstance(read.data, dict) or not read.data.get("steps"):
        raise UsageError(f"{file}: no build steps are specified")
    read.decode(Build)
    substitutions = Substitutions(file, read.data, built_in, given)
    build = read.decode(Build, substitutions.applied())
    _check(file, build)
    return Loaded(build=build, variables=substitutions.environment)


def _check(file: str, build: Build) -> None:
    if len(build.steps) > _MOST_STEPS:
        raise UsageError(f"{file}: more than {_MOST_STEPS} steps")
    if not 0 < build.seconds <= _LONGEST:
        raise UsageError(f"{file}: timeout: more than 0 s and at most 24 hours")
    seen = {"-"}
    for index, step in enumerate(build.steps):
        where = f"{file}: steps[{index}]"
        for name in step.wait_for:
            if name not in seen:
                raise UsageError(
                    f"{where}.waitFor: '{name}' has not been defined: a step waits for earlier ones"
                )
        if step.id in seen:
            raise UsageError(f"{where}.id: '{step.id}' is not unique")
        if step.id:
            seen.add(step.id)
        if step.script and (step.args or step.entrypoint):
            raise UsageError(f"{where}: script excludes args and entrypoint")
        if step.seconds is not None and not 0 < step.seconds <= build.seconds:
            raise UsageError(f"{where}.timeout: {step.timeout} is longer than the build's timeout")
        _check_variables(f"{where}.env", step.env)
    _check_variables(f"{file}: options.env", build.options.env)
    _check_volumes(file, build)
    _check_secrets(file, build)


def _check_variables(where: str, env: list[str]) -> None:
    names = [entry.partition("=")[0] for entry in env]
    for entry, name in zip(env, names, strict=True):
        if "=" not in entry:
            raise UsageError(f"{where}: '{entry}' must be of the form KEY=VALUE")
        if names.count(name) > 1:
            raise UsageError(f"{where}: {name} is defined twice")


def _check_volumes(file: str, build: Build) -> None:
    used: dict[str, int] = {}
    for volume in [v for step in build.steps for v in step.volumes]:
        used[volume.name] = used.get(volume.name, 0) + 1
    for name, times in used.items():
        if times < 2:
            raise UsageError(f"{file}: volume '{name}' is used by one step only")
    if build.options.volumes and len(build.steps) < 2:
        raise UsageError(f"{file}: options.volumes: useless in a build of one step")
    for step in build.steps:
        ours = [*step.volumes, *build.options.volumes]
        for volume in ours:
            if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", volume.name):
                raise UsageError(f"{file}: volume '{volume.name}': not a valid name of a volume")
            if not volume.path.startswith("/") or volume.path.rstrip("/") in _RESERVED:
                raise UsageError(
                    f"{file}: volume '{volume.name}': {volume.path} is not an allowed path"
                )
        paths = [volume.path for volume in ours]
        if len(set(paths)) < len(paths):
            raise UsageError(f"{file}: two volumes of a step have the same path")


def _check_secrets(file: str, build: Build) -> None:
    if build.available_secrets.inline:
        raise UsageError(f"{file}: a rehearsal has no Cloud KMS: use Secret Manager")
    defined = [secret.env for secret in build.available_secrets.secret_manager]
    for secret in build.available_secrets.secret_manager:
        if not re.fullmatch(r"projects/[^/]+/secrets/[^/]+/versions/[^/]+", secret.version_name):
            raise UsageError(
                f"{file}: availableSecrets: {secret.version_name}:"
                " expected projects/…/secrets/…/versions/…"
            )
        if defined.count(secret.env) > 1:
            raise UsageError(f"{file}: availableSecrets: {secret.env} is defined twice")
    used = {name for step in build.steps for name in step.secret_env} | {*build.options.secret_env}
    for name in sorted(used - {*defined}):
        raise UsageError(f"{file}: secretEnv: {name} is not in availableSecrets")
    for name in sorted({*defined} - used):
        raise UsageError(f"{file}: availableSecrets: no step uses {name}")


def seconds(duration: str) -> float:
    """Return a duration of Google's APIs, such as 600s, in seconds.

    Raises:
        UsageError: it has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d{1,9})?)s", duration)
    if not match:
        raise UsageError(f"'{duration}' is not a duration such as 600s")
    return float(match[1])
