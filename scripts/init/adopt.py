"""A service that runs already, as files: its manifest, its environment, its first smoke checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.config import yamledit
from scripts.config.formats import Environment
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, ShipError
from scripts.init import fork
from scripts.init.fork import Answers
from scripts.init.tree import Files
from scripts.release.declared import declared
from scripts.release.manifest import INVOKER_CHECK, Object, image_of, serving_container

_REGISTRY = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev/[a-z0-9][a-z0-9.:-]*/[a-z0-9][a-z0-9-]*)/")
_SECRET = re.compile(r"PASS|SECRET|TOKEN|PRIVATE|CREDENTIAL|API_?KEY", re.IGNORECASE)

_HEAD = """\
# The Cloud Run manifest of this service, adopted from what ran in {project}, {region}.
# Its image is the placeholder 'app': the commit's own takes its place. What differs between
# environments stands in their own files; traffic and revision names are decided by releases.
"""
_SMOKE = """\
# What a revision must answer at its own URL before it gets traffic, and again after each step.
# The first check is always made: the URL answers with the commit that was built, in a JSON field.
# The build passes COMMIT_SHA as a build argument; name here the path that tells it.
- name: commit
  path: /version
  expect: {commit: commit} # the JSON field that holds the commit's SHA
"""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A service as it was found, and where."""

    service: Object
    env: str
    project: str
    region: str
    open_to_all: bool
    """Whether its IAM policy lets everybody invoke it."""

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
    def registry(self) -> str:
        """Where its images are, if that is an Artifact Registry; else where they are to be."""
        found = _REGISTRY.match(str(image_of(self.service["spec"]["template"])))
        return found[1] if found else f"{self.region}-docker.pkg.dev/{self.project}/services"


def find(root: Path, files: Files, *, name: str, env: str, project: str, region: str) -> Running:
    """Read a service over the API.

    Args:
        root: the repository.
        files: what `tree.read` found: the environment `local` is reached as its file says.
        name: the service's name.
        env: what its environment is to be called.
        project: the project's id.
        region: its region.

    Raises:
        Failed: there is no such service.
    """
    local = yaml.safe_load(_local(files, region)) if env == fork.LOCAL else {}
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
        service=name, env=env, root=root, environment=environment, overlay={}, manifest={},
        checks=[],
    )  # fmt: skip
    google = Google(pipeline, dry_run=True)
    service = CloudRun(google, pipeline, region).service()
    if service is None:
        raise Failed(
            f"there is no service {name} in {project}, {region}",
            f"gcloud run services list --project {project}",
        )
    return Running(
        service=service, env=env, project=project, region=region,
        open_to_all=_open_to_all(google, f"/v1/projects/{project}/locations/{region}", name),
    )  # fmt: skip


def _open_to_all(google: Google, parent: str, name: str) -> bool:
    """Whether allUsers may invoke it; False where that may not be read."""
    try:
        policy = google.get("run", f"{parent}/services/{name}:getIamPolicy")
    except ShipError:
        return False
    return any(
        binding.get("role") == "roles/run.invoker" and "allUsers" in (binding.get("members") or [])
        for binding in policy.get("bindings") or []
    )


def says(files: Files, running: Running, source: str) -> tuple[Files, dict[str, str]]:
    """The files with the service adopted; the sample's go if they are still the sample's.

    Args:
        files: what `tree.read` found.
        running: the service as it was found.
        source: the folder that it is built from.

    Returns:
        The files, and which of them comes from which: nothing is renamed.
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
    if yaml.safe_load(fork.with_source(made.get(path, "{}"), answers)) != _sourced(
        manifest, answers
    ):
        head = _HEAD.format(project=running.project, region=running.region)
        made[path] = fork.with_source(head + _dump(manifest), answers)
    made.setdefault(f"{folder}/smoke.yaml", _smoke(manifest))
    if running.env != fork.LOCAL:
        made.setdefault(f"{folder}/{fork.LOCAL}.yaml", _local(files, running.region))
    path = f"{folder}/{running.env}.yaml"
    made[path] = _environment(made.get(path), running, account, files)
    return fork.with_triggers(made, running.name), {}


def _manifest(running: Running) -> tuple[Object, str | None]:
    """The manifest, and the account that it runs as: that is the environment's."""
    manifest = declared(running.service)
    account = manifest["spec"]["template"]["spec"].pop("serviceAccountName", None)
    return manifest, account


def _sourced(manifest: Object, answers: Answers) -> Any:
    return yaml.safe_load(fork.with_source(_dump(manifest), answers))


def _dump(manifest: Object) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=10_000, allow_unicode=True)


def _smoke(manifest: Object) -> str:
    """The commit's check, and what its own probes ask."""
    container = serving_container(manifest["spec"]["template"]["spec"])
    probes = (container.get(kind) or {} for kind in ("livenessProbe", "startupProbe"))
    paths = [(probe.get("httpGet") or {}).get("path") for probe in probes]
    path = next((p for p in paths if p and p != "/healthz" and p.startswith("/")), None)
    return _SMOKE + (f"- name: health\n  path: {yamledit.scalar(path)}\n" if path else "")


def _environment(there: str | None, running: Running, account: str | None, files: Files) -> str:
    annotations = running.service["metadata"].get("annotations") or {}
    public = annotations.get(INVOKER_CHECK) == "true"
    access = "public" if public else "private"
    if there is not None:
        text = yamledit.replace(there, ["project"], yamledit.scalar(running.project))
        regions = yamledit.get(text, ["regions"]) or []
        if running.region not in regions:
            text = fork.with_regions(text, [running.region])
        return yamledit.replace(text, ["access"], access)
    note = "its IAM policy lets everybody in all the same" if running.open_to_all else ""
    if running.env == fork.LOCAL:
        text = _local(files, running.region)
        text = yamledit.replace(text, ["project"], yamledit.scalar(running.project))
        text = yamledit.replace(text, ["access"], access)
        return text if account is None else text + _overlay(account)
    text = fork.environment(
        project=running.project, regions=[running.region], registry=running.registry,
        access=access, access_note=note, account=account,
    )  # fmt: skip
    steps = "rollout:\n  steps: [10, 50, 100]\n  bake: 5m"
    return text.replace("rollout:\n  steps: [100]", f"confirm: true\n{steps}")


def _overlay(account: str) -> str:
    return f"overlay:\n  spec:\n    template:\n      spec:\n        serviceAccountName: {account}\n"


def _local(files: Files, region: str) -> str:
    """The local environment's file: as another service has it, else as the template has it."""
    found = [text for path, text in files.items() if path.endswith(f"/{fork.LOCAL}.yaml")]
    if not found:
        return fork.LOCAL_FILE.format(region=region)
    text = yamledit.remove(found[0], ["overlay"])
    answers = Answers(service="x", source="x", projects={}, regions=[region])
    return fork.follow_regions(text, answers)


def folder_of(root: Path, files: Files, name: str) -> str:
    """Where the code of an adopted service is: its own folder, else the sample's place."""
    if (root / name).is_dir():
        return name
    there = fork.Fork(files, name)
    if f"pipelines/{name}/service.yaml" in files:
        return there.source
    sample = fork.Fork(files, fork.SAMPLE_SERVICE)
    return sample.source if sample.is_sample else name


def check(running: Running) -> None:
    """Refuse what one container cannot stand for.

    Raises:
        Refused: the service runs functions or images of Google's own building.
    """
    annotations = running.service["metadata"].get("annotations") or {}
    if "run.googleapis.com/build-function-target" in annotations:
        raise Refused(
            f"{running.name} is a function that Cloud Run builds from source",
            "Shipway delivers images: it needs a Dockerfile of its own",
        )
