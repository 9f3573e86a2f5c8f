"""Turn a running service into files: its manifest, its environment, its first smoke checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scripts.cloud import answers
from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.config import yamledit, yamlload
from scripts.config.formats import GRADUAL, Environment
from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, ShipError
from scripts.init import environments, fitting, fork
from scripts.init.environments import LOCAL
from scripts.init.fork import Answers
from scripts.init.tree import Files
from scripts.release.declared import declared
from scripts.release.manifest import (
    INVOKER_CHECK,
    MINIMUM,
    REVISION_MINIMUM,
    Object,
    image_of,
    own_minimum,
    serving_container,
)

_REGISTRY = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev/[a-z0-9][a-z0-9.:-]*/[a-z0-9][a-z0-9-]*)/")
_SECRET = re.compile(r"PASS|SECRET|TOKEN|PRIVATE|CREDENTIAL|API_?KEY", re.IGNORECASE)

_HEAD = """\
# The Cloud Run manifest of this service, adopted from {project}, {region}.
# The image 'app' is a placeholder for the commit's own. Differences between environments are in
# their own files. Releases decide traffic and revision names; files do not.
"""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A running service.

    Attributes:
        service: the Knative Service.
        env: the name of its environment.
        project: its project's ID.
        region: its region.
        open_to_all: whether its IAM policy allows everyone to invoke it.
    """

    service: Object
    env: str
    project: str
    region: str
    open_to_all: bool

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.service["metadata"]["name"])

    @property
    def sounds_secret(self) -> dict[str, str]:
        """Plain environment variables whose names sound like secrets: name -> value."""
        containers = self.service["spec"]["template"]["spec"]["containers"]
        return {
            variable["name"]: str(variable["value"])
            for container in containers
            for variable in container.get("env") or []
            if variable.get("value") and _SECRET.search(variable["name"])
        }

    @property
    def sidecars_by_tag(self) -> dict[str, ImageReference]:
        """Sidecars whose image is not named by digest, as a manifest requires: name -> image."""
        spec = self.service["spec"]["template"]["spec"]
        serving = serving_container(spec)
        images = {
            str(one.get("name")): ImageReference.parse(str(one["image"]))
            for one in spec["containers"]
            if one is not serving
        }
        return {name: image for name, image in images.items() if not image.is_by_digest}

    @property
    def own_minimum(self) -> int:
        """The minimum of instances that each of its revisions has by itself."""
        return own_minimum(self.service["spec"]["template"])

    @property
    def registry(self) -> str:
        """The repository of its image; a new one if that is not in Artifact Registry."""
        found = _REGISTRY.match(str(image_of(self.service["spec"]["template"])))
        return found[1] if found else f"{self.region}-docker.pkg.dev/{self.project}/services"


def find(root: Path, files: Files, *, name: str, env: str, project: str, region: str) -> Running:
    """Read a service from Cloud Run.

    Args:
        root: the repository.
        files: the result of `tree.read`; the file of `local` names its endpoint.
        name: the service's name.
        env: the name that its environment gets.
        project: the project's ID.
        region: its region.

    Raises:
        Failed: the service does not exist.
    """
    local = yamlload.load(_local(files, region)) if env == LOCAL else {}
    kept = ("endpoint", "credentials", "builder", "platform")
    environment = msgspec.convert(
        {
            "project": project,
            "regions": [region],
            "registry": f"{region}-docker.pkg.dev/{project}/services",
            **{key: local[key] for key in kept if key in local},
        },
        Environment,
    )
    pipeline = Pipeline(
        service=name, env=env, root=root, checkout=root, environment=environment, overlay={},
        manifest={}, checks=[],
    )  # fmt: skip
    google = Google(pipeline, dry_run=True)
    service = CloudRun(google, pipeline, region).service()
    if service is None:
        raise Failed(
            f"the service {name} does not exist in {project}, {region}",
            f"gcloud run services list --project {project}",
        )
    return Running(
        service=service, env=env, project=project, region=region,
        open_to_all=_open_to_all(google, f"/v1/projects/{project}/locations/{region}", name),
    )  # fmt: skip


def _open_to_all(google: Google, parent: str, name: str) -> bool:
    """Return whether allUsers may invoke the service; False if the policy may not be read."""
    try:
        policy = google.get("run", f"{parent}/services/{name}:getIamPolicy", answers.Policy)
    except ShipError:
        return False
    return any(
        binding.get("role") == "roles/run.invoker" and "allUsers" in (binding.get("members") or [])
        for binding in policy.get("bindings") or []
    )


def adopted(files: Files, running: Running, source: str) -> Files:
    """Return the files with the service in them, and without the sample's own.

    Args:
        files: the result of `tree.read`.
        running: the service.
        source: the folder that it is built from.
    """
    folder = f"pipelines/{running.name}"
    made = dict(files)
    sample = fork.Fork(files, fork.SAMPLE_SERVICE)
    if sample.is_sample and running.name != fork.SAMPLE_SERVICE:
        made = {p: t for p, t in made.items() if not p.startswith(f"pipelines/{sample.service}/")}
    elif sample.is_sample:
        made = {p: t for p, t in made.items() if not p.startswith(f"{folder}/")}
    answers = Answers(service=running.name, source=source, projects={})
    manifest, account = _manifest(running)
    path = f"{folder}/service.yaml"
    if yamlload.load(fork.with_source(made.get(path, "{}"), answers)) != _sourced(
        manifest, answers
    ):
        head = _HEAD.format(project=running.project, region=running.region)
        made[path] = fork.with_source(head + _dump(manifest), answers)
    made.setdefault(f"{folder}/smoke.yaml", _smoke(manifest))
    if running.env != LOCAL:
        made.setdefault(f"{folder}/{LOCAL}.yaml", _local(files, running.region))
    path = f"{folder}/{running.env}.yaml"
    made[path] = _environment(made.get(path), running, account, files)
    return fork.with_triggers(made)


def _manifest(running: Running) -> tuple[Object, str | None]:
    """Return the manifest, and the account that the service runs as, for the environment's file.

    A minimum of instances of each revision becomes one of the service, unless it has one.
    """
    manifest = declared(running.service)
    if running.own_minimum:
        manifest["spec"]["template"]["metadata"]["annotations"].pop(REVISION_MINIMUM)
        annotations = manifest["metadata"].setdefault("annotations", {})
        annotations.setdefault(MINIMUM, str(running.own_minimum))
    account = manifest["spec"]["template"]["spec"].pop("serviceAccountName", None)
    return manifest, account


def _sourced(manifest: Object, answers: Answers) -> Any:
    return yamlload.load(fork.with_source(_dump(manifest), answers))


def _dump(manifest: Object) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=10_000, allow_unicode=True)


def _smoke(manifest: Object) -> str:
    """Return smoke checks with the path that the service's probes request."""
    container = serving_container(manifest["spec"]["template"]["spec"])
    probes = (container.get(kind) or {} for kind in ("livenessProbe", "startupProbe"))
    paths = [(probe.get("httpGet") or {}).get("path") for probe in probes]
    path = next((p for p in paths if p and p != "/healthz" and p.startswith("/")), None)
    return fitting.smoke(path)


def _environment(current: str | None, running: Running, account: str | None, files: Files) -> str:
    annotations = running.service["metadata"].get("annotations") or {}
    public = annotations.get(INVOKER_CHECK) == "true"
    access = "public" if public else "private"
    if current is not None:
        text = yamledit.replace(current, ["project"], yamledit.scalar(running.project))
        regions = yamledit.get(text, ["regions"]) or []
        if running.region not in regions:
            text = environments.with_regions(text, [running.region])
        return yamledit.replace(text, ["access"], access)
    note = "but its IAM policy allows everyone" if running.open_to_all else ""
    if running.env == LOCAL:
        text = _local(files, running.region)
        text = yamledit.replace(text, ["project"], yamledit.scalar(running.project))
        text = yamledit.replace(text, ["access"], access)
        return environments.with_account(text, account) if account else text
    return environments.new(
        project=running.project, regions=[running.region], registry=running.registry,
        access=access, access_note=note, confirm=True, rollout=GRADUAL, account=account,
    )  # fmt: skip


def _local(files: Files, region: str) -> str:
    """Return the local environment's file: another service's, else the template's."""
    found = [text for path, text in files.items() if path.endswith(f"/{LOCAL}.yaml")]
    if not found:
        return environments.new_local(region)
    text = yamledit.remove(found[0], ["overlay"])
    return environments.local_with_regions(text, [region])


def folder_of(root: Path, files: Files, name: str) -> str:
    """Return the folder of an adopted service's code: its own, else the sample's."""
    if (root / name).is_dir():
        return name
    if f"pipelines/{name}/service.yaml" in files:
        return fork.Fork(files, name).source
    sample = fork.Fork(files, fork.SAMPLE_SERVICE)
    return sample.source if sample.is_sample else name


def check(running: Running) -> None:
    """Refuse a service that Shipway could not deliver as it is.

    Raises:
        Refused: Cloud Run builds the service from source, as a function; or a sidecar's image is
            named by tag, which others can move (I2).
    """
    annotations = running.service["metadata"].get("annotations") or {}
    if "run.googleapis.com/build-function-target" in annotations:
        raise Refused(
            f"{running.name} is a function that Cloud Run builds from source",
            "Shipway delivers images: give it a Dockerfile, and deploy it as a container first",
        )
    for sidecar, image in running.sidecars_by_tag.items():
        raise Refused(
            f"the sidecar {sidecar} of {running.name} runs {image}, which is named by tag",
            "deploy it by digest first, then adopt the service: gcloud run services update"
            f" {running.name} --container={sidecar} --image={image.repository}@sha256:…",
        )
