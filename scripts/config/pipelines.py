"""Read and check pipelines/<service>/: the manifest, the smoke checks, one environment."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from scripts.config import knative, running, sources
from scripts.config.formats import (
    BUILT_IN,
    Check,
    Duration,
    Environment,
    Rollout,
    ServiceName,
    Watch,
    matches,
)
from scripts.config.image_reference import ImageReference
from scripts.config.yamlfile import YamlFile, description
from scripts.errors import UsageError, did_you_mean

ENDPOINT_VARIABLE = "SHIPWAY_ENDPOINT"
DEFAULT_ENV = "local"


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one service in one environment.

    Attributes:
        service: its name.
        env: the environment's name.
        root: the folder that holds pipelines/ and the service's own folder.
        checkout: the user's folder, where `up` keeps the local Cloud Run; `root` may be a copy.
        environment: the environment's file.
        overlay: the environment's overlay as it is written, nulls included.
        manifest: service.yaml as it is written.
        checks: the smoke checks.
    """

    service: str
    env: str
    root: Path
    checkout: Path
    environment: Environment
    overlay: dict[str, Any]
    manifest: dict[str, Any]
    checks: list[Check]

    @property
    def sources(self) -> dict[str, Path]:
        """The folders that are built: placeholder in the manifest → folder, `app` first."""
        return {
            word: self.root / folder
            for word, folder in sources.of(self.manifest, self.service).items()
        }

    @property
    def source(self) -> Path:
        """The folder of `app`: <service>/, unless the manifest's annotation names another."""
        return self.sources[sources.APP]

    @property
    def where(self) -> str:
        """The arguments that mean this service in this environment: "app --env staging"."""
        return self.service if self.env == DEFAULT_ENV else f"{self.service} --env {self.env}"

    @property
    def at_google(self) -> bool:
        """Whether Google's own addresses are used."""
        return self.environment.endpoint is None and not _given()

    @property
    def uses_up(self) -> bool:
        """Whether the local Cloud Run of the checkout is used, whatever its address."""
        return self.environment.endpoint == running.UP and not _given()

    @property
    def belongs(self) -> bool:
        """Whether what is used must be of this checkout: the file names it, not the variable."""
        return self.environment.endpoint is not None and not _given()

    @property
    def endpoint(self) -> str | None:
        """The address to use instead of Google's, if any.

        Raises:
            NotUp: it is the local Cloud Run's, which is not up.
            UsageError: the environment variable is not an address.
        """
        if self.uses_up:
            return running.address(self.checkout)
        return _given() or self.environment.endpoint

    @property
    def verifies_provenance(self) -> bool:
        """Whether only images with provenance that verifies are deployed (`verify`).

        The default is yes for an environment named production whose registry is Google's.
        """
        if self.environment.verify is not None:
            return self.environment.verify == "provenance"
        host = self.environment.registry.partition("/")[0]
        return self.env == "production" and host.endswith(".pkg.dev") and self.at_google

    @property
    def repository(self) -> ImageReference:
        """Where the images of `app` are: HOST/PROJECT/REPOSITORY/SERVICE.

        Those of another placeholder are below, as SERVICE/WORD.
        """
        host, _, path = self.environment.registry.partition("/")
        if endpoint := self.endpoint:
            host = endpoint.partition("://")[2]
        return ImageReference(host=host, path=f"{path}/{self.service}")


def _given() -> str:
    """Return the address that the environment variable names; "" for none."""
    given = os.environ.get(ENDPOINT_VARIABLE, "")
    if given and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?", given):
        raise UsageError(
            f"{ENDPOINT_VARIABLE}={given}: not an address such as http://127.0.0.1:8787"
        )
    return given.rstrip("/")


def seconds(duration: str) -> float:
    """Convert a duration ("90s", "5m", "1h") to seconds.

    Raises:
        UsageError: it is not a duration.
    """
    if not matches(duration, Duration):
        raise UsageError(f"'{duration}' is not a duration, such as 90s, 5m or 1h")
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def services(root: Path) -> list[str]:
    """Return the names of the services in pipelines/, sorted."""
    return sorted(p.parent.name for p in (root / "pipelines").glob("*/service.yaml"))


def environments(root: Path, service: str) -> list[str]:
    """Return the names of a service's environments, sorted."""
    folder = root / "pipelines" / service
    return sorted(p.stem for p in folder.glob("*.yaml") if p.stem not in ("service", "smoke"))


def having(root: Path, env: str) -> list[str]:
    """Return the names of the services that have an environment, sorted."""
    return [service for service in services(root) if env in environments(root, service)]


def load(root: Path, service: str | None, env: str, *, checkout: Path | None = None) -> Pipeline:
    """Read and check pipelines/<service>/: manifest, smoke checks and one environment.

    Args:
        root: the folder that holds pipelines/.
        service: its name; None if there is only one.
        env: the environment's name.
        checkout: the user's folder; `root` unless that is a copy.

    Raises:
        UsageError: a file is missing or wrong; names the file, line and key.
    """
    if checkout is not None and service in {*services(checkout)} - {*services(root)}:
        raise UsageError(
            f"no service '{service}' in the commit: pipelines/{service}/ is not in it",
            "Shipway delivers committed files: git add -A && git commit",
        )
    name = check_known(root, service)
    found = load_each(root, name, [env], checkout=checkout)[env]
    if isinstance(found, UsageError):
        raise found
    return found


def load_each(
    root: Path, name: str, envs: Sequence[str] | None = None, *, checkout: Path | None = None
) -> dict[str, Pipeline | UsageError]:
    """Read and check a service in several environments; each file is read once.

    Args:
        root: the folder that holds pipelines/.
        name: an existing service.
        envs: the environments' names; all unless given.
        checkout: the user's folder; `root` unless that is a copy.

    Returns:
        Environment -> its files, or what is wrong with them.
    """
    known = environments(root, name)
    found: dict[str, Pipeline | UsageError] = {}
    manifest: dict[str, Any] | None = None
    checks: list[Check] | None = None
    for env in known if envs is None else envs:
        try:
            if env not in known:
                raise UsageError(
                    f"no environment '{env}': pipelines/{name}/{env}.yaml does not exist",
                    did_you_mean(env, known, "environments here"),
                )
            manifest = manifest or _manifest(root, name)
            words = sources.of(manifest, name)
            environment, overlay = _environment(root, name, env, known, words)
            checks = checks or _checks(root, name)
            found[env] = Pipeline(
                service=name,
                env=env,
                root=root,
                checkout=checkout or root,
                environment=environment,
                overlay=overlay,
                manifest=manifest,
                checks=checks,
            )
        except UsageError as error:
            found[env] = error
    return found


def load_all(root: Path, env: str) -> list[Pipeline]:
    """Read and check every service that has an environment, as `load` does."""
    return [load(root, name, env) for name in having(root, env)]


def earlier(pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """Read the environment that `after` names, for each service that has one.

    Raises:
        UsageError: a file is wrong.
    """
    return [
        load(pipeline.root, pipeline.service, pipeline.environment.after)
        for pipeline in pipelines
        if pipeline.environment.after is not None
    ]


def check_known(root: Path, service: str | None, *, every: bool = True) -> str:
    """Return a service's name; the only one's if none is given.

    Args:
        root: the folder that holds pipelines/.
        service: the name that was typed.
        every: whether `--all` is an answer to "which one?".

    Raises:
        UsageError: there is no such service, or there are several and none is named.
    """
    known = services(root)
    if not known:
        raise UsageError(
            f"no pipelines/<service>/service.yaml under {root}", "run this in a fork of Shipway"
        )
    if service is None:
        if len(known) > 1:
            raise UsageError(
                f"name the service: {', '.join(known)}",
                f"several: {','.join(known[:2])}{'; every one: --all' if every else ''}",
            )
        return known[0]
    if service not in known:
        raise UsageError(
            f"no service '{service}': pipelines/{service}/service.yaml does not exist",
            _option_for(root, service, known) or did_you_mean(service, known, "services here"),
        )
    return service


def _option_for(root: Path, word: str, known: list[str]) -> str:
    """Return the option that takes a word that was typed as a service; "" if none does."""
    if any(word in environments(root, service) for service in known):
        return f"an environment is typed with its option: --env {word}"
    if word.removesuffix("%").isdecimal():
        return f"a percentage is typed with its option: promote --to {word.removesuffix('%')}"
    return ""


def _file(root: Path, *parts: str) -> YamlFile:
    relative = Path("pipelines", *parts)
    return YamlFile(root / relative, str(relative))


def _manifest(root: Path, name: str) -> dict[str, Any]:
    file = _file(root, name, "service.yaml")
    service = file.decode(knative.Service)
    data: dict[str, Any] = file.data
    for key in ("apiVersion", "kind", "metadata", "spec"):
        if key not in data:
            raise file.error([], f"missing key '{key}'")
    declared = service.metadata.name if service.metadata else None
    if declared != name:
        raise file.error(
            ["metadata", "name"], f"is '{declared}', but the folder is pipelines/{name}/"
        )
    if not matches(name, ServiceName):
        raise file.error(["metadata", "name"], f"not valid: expected {description(ServiceName)}")
    template = service.spec.template if service.spec else None
    containers = template.spec.containers if template and template.spec else None
    if not containers:
        raise file.error(["spec", "template", "spec"], "missing key 'containers'")
    path: list[str | int] = ["spec", "template", "spec", "containers"]
    folders = sources.of(data, name)
    sources.check(root, file, folders, [container.image for container in containers])
    sources.check_images(file, path, containers, folders)
    return data


def folders(root: Path) -> list[str] | None:
    """Return the folders that the services are built from, besides pipelines/.

    None if a file may name others: then, all files are needed.
    """
    files = sorted((root / "pipelines").glob("*/*.yaml"))
    related = [*(root / "pipelines").glob("services.yaml")]
    try:
        texts = [file.read_text(encoding="utf-8") for file in (*files, *related)]
    except (OSError, UnicodeDecodeError):
        return None
    if any(re.search(f"{sources.SOURCE}|trust|shared", text) for text in texts):
        return None
    return sorted({file.parent.name for file in files})


# What an overlay must not remove.
_NEEDED = (
    ["metadata"],
    ["spec"],
    ["spec", "template"],
    ["spec", "template", "spec"],
    ["spec", "template", "spec", "containers"],
)


def _environment(
    root: Path, name: str, env: str, known: list[str], words: Collection[str]
) -> tuple[Environment, dict[str, Any]]:
    file = _file(root, name, f"{env}.yaml")
    environment = file.decode(Environment)
    over = environment.overlay
    template = over.spec.template if over and over.spec else None
    containers = template.spec.containers if template and template.spec else None
    path: list[str | int] = ["overlay", "spec", "template", "spec", "containers"]
    sources.check_images(file, path, containers, words)
    if environment.credentials not in ("google", "none") and environment.endpoint != running.UP:
        raise file.error(
            ["credentials"],
            f"'{environment.credentials}' gets a token only from the local Cloud Run",
            "write endpoint: up, or credentials: google",
        )
    steps = environment.rollout.steps
    for index, (earlier, later) in enumerate(pairwise(steps), 1):
        if later <= earlier:
            raise file.error(
                ["rollout", "steps", index], f"{later} is not more than {earlier}: steps must rise"
            )
    _check_watch(file, environment.rollout)
    for index, receiver in enumerate(environment.notify):
        if receiver.to != "cloud-event" and receiver.url.startswith("https://"):
            raise file.error(
                ["notify", index, "url"],
                f"the address of a {receiver.to} webhook is a secret: who reads it can post",
                "write $VARIABLE, or projects/PROJECT/secrets/NAME",
            )
    if environment.after is not None and environment.after not in known:
        raise file.error(
            ["after"],
            f"no environment '{environment.after}'",
            did_you_mean(environment.after, known, "environments here"),
        )
    written = file.data.get("overlay") or {}
    for needed in _NEEDED:
        part: Any = written
        for key in needed[:-1]:
            part = part.get(key) or {}
        if needed[-1] in part and part[needed[-1]] is None:
            raise file.error(
                ["overlay", *needed],
                f"null would remove the manifest's {needed[-1]}, which a service needs",
                "leave the key out",
            )
    return environment, written


def needed(watch: Watch) -> float:
    """Return the seconds until the first answers of a step that count are seen."""
    return seconds(watch.warm_up) + seconds(watch.delay)


def _check_watch(file: YamlFile, rollout: Rollout) -> None:
    """Refuse a watch that could never see a step's answers before the step ends."""
    watch = rollout.watch
    if watch is None:
        return
    if len(rollout.steps) > 1 and seconds(rollout.bake) <= needed(watch):
        raise file.error(
            ["rollout", "bake"],
            f"{rollout.bake} is over before its first answers are seen: the first {watch.warm_up}"
            f" do not count (warm-up), and numbers arrive up to {watch.delay} late (delay)",
            f"bake longer than {needed(watch):g}s",
        )
    if not watch.errors and not watch.latency:
        raise file.error(["rollout", "watch"], "watches nothing", "leave out `watch`")
    if float(watch.false_alarms.rstrip("%")) == 0:
        raise file.error(
            ["rollout", "watch", "false-alarms"], "0% could never be reached", "write 1%"
        )


def _checks(root: Path, name: str) -> list[Check]:
    file = _file(root, name, "smoke.yaml")
    if file.data is None:
        return [BUILT_IN]
    checks = file.decode(list[Check])
    for index, check in enumerate(checks):
        if check.path.split("?")[0] == "/healthz":
            raise file.error(
                [index, "path"],
                "Google's front end answers /healthz itself, so a service never gets the request",
                "check another path, such as /health",
            )
    return checks or [BUILT_IN]
