"""Checks in the projects: APIs, registry, image, service, secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.cloud import answers
from scripts.cloud.google import ApiError, NotFound
from scripts.doctor.case import Case
from scripts.doctor.finding import Finding, of_error, ok, skipped, warning, wrong
from scripts.errors import ShipError, UsageError
from scripts.image.commit_images import CommitImages
from scripts.machine import git
from scripts.release import manifest
from scripts.release.state import condition
from scripts.service import local_secrets
from scripts.service.context import Context
from scripts.setup import cloud as setup
from scripts.setup import resources, wanted
from scripts.setup.permissions import Federation
from scripts.setup.resources import Resource


def projects(case: Case) -> Iterator[Finding]:
    """Check that the projects exist. Also note their numbers, which the plan of access needs."""
    for project in case.projects:
        try:
            number = setup.number(case.google, project)
        except ShipError as error:
            # Anyone who may view something in the project may read its number here.
            try:
                path = f"/v1/projects/{project}"
                number = str(
                    case.google.get("cloudresourcemanager", path, answers.Project)["projectNumber"]
                )
            except ShipError:
                context = {**case.context(), "project": project}
                yield of_error("project", error, context, looking=True)
                continue
        case.numbers[project] = number
        yield ok("project", f"{project} has number {number}")


def apis(case: Case, plan: Federation) -> Iterator[Finding]:
    """Check that every API that a delivery uses is enabled."""
    for project, wanted_ in wanted.apis(plan, case.pipelines).items():
        names = [f"projects/{project}/services/{name}" for name in wanted_]
        path = f"/v1/projects/{project}/services:batchGet"
        try:
            answer = case.google.get("serviceusage", path, answers.EnabledApis, names=names)
            found = answer.get("services") or []
        except ShipError as error:
            context = {**case.context(), "project": project}
            yield of_error("apis", error, context, looking=True)
            continue
        off = [one["config"]["name"] for one in found if one.get("state") != "ENABLED"]
        if off:
            yield wrong(
                "apis",
                f"not enabled in {project}: {', '.join(off)}",
                f"gcloud services enable {' '.join(off)} --project {project}",
                "api-disabled",
            )
        else:
            yield ok("apis", f"all {len(found)} are enabled in {project}")


def registry(case: Case) -> Iterator[Finding]:
    """Check that the repository for images exists, and is for Docker images."""
    images = case.images
    try:
        found = case.read(images)
    except NotFound:
        yield wrong(
            "registry",
            f"the repository {case.environment.registry} does not exist",
            f"./ship bootstrap --env {case.pipeline.env}",
            "no-repository",
        )
        return
    except ShipError as error:
        yield of_error("registry", error, case.context(), looking=True)
        return
    if found.get("format") != "DOCKER":
        yield wrong(
            "registry",
            f"{case.environment.registry} is for {found.get('format')}, not for Docker images",
            f"name another one in pipelines/{case.pipeline.service}/{case.pipeline.env}.yaml",
        )
        return
    tags = (found.get("dockerConfig") or {}).get("immutableTags")
    yield ok("registry", f"{case.environment.registry}{', tags are immutable' if tags else ''}")


def image(case: Case, context: Context) -> Iterator[Finding]:
    """Check that the newest commit's image, if it exists, is for the environment's platform."""
    images = CommitImages(context.pipeline, context.google, context.root)
    try:
        commit = git.commit(case.root)
        found = images.find(commit)
    except ShipError as error:
        yield of_error("image", error, case.context())
        return
    if found is None:
        yield ok("image", f"commit {commit.short} has no image yet")
    elif images.platform not in found.resolved.platforms:
        has = ", ".join(found.resolved.platforms) or "nothing"
        yield wrong(
            "image",
            f"the image of commit {commit.short} is for {has}, not for {images.platform},"
            " usually because it was built on an Arm laptop",
            f"make a new commit, then ./ship deliver {case.pipeline.where}: it always builds for"
            f" {images.platform}",
            "wrong-platform",
        )
    else:
        yield ok("image", f"the image of commit {commit.short} is for {images.platform}")


def callees(case: Case, context: Context) -> Iterator[Finding]:
    """Check that every service that this one calls has been delivered."""
    for region in case.environment.regions if context.callees.called else []:
        try:
            urls = context.callees.urls(region)
        except UsageError as error:
            yield wrong("calls", error.message, error.hint or "")
            continue
        except ShipError as error:
            yield of_error("calls", error, case.context(), looking=True)
            continue
        set_to = ", ".join(f"{name}={url}" for name, url in urls.items())
        yield ok("calls", f"{case.pipeline.service} gets {set_to}, {region}")


def services(case: Case) -> Iterator[Finding]:
    """Check that the service exists in each region, and that its newest revision started."""
    for resource in case.services:
        region = resource.location
        try:
            found = case.read(resource)
        except NotFound:
            yield _absent(case, region)
            continue
        except ShipError as error:
            yield of_error("service", error, case.context(), looking=True)
            continue
        yield _state(case, region, found)
        yield from _opening(case, resource, found)


def _absent(case: Case, region: str) -> Finding:
    where = f"{case.pipeline.service} in {case.environment.project}, {region}"
    if not case.takes_credentials:
        return ok("service", f"{where}: does not exist yet; the first delivery creates it")
    return wrong(
        "service",
        f"{where}: does not exist, and a deployer may not create it",
        f"./ship bootstrap --env {case.pipeline.env}",
    )


def _state(case: Case, region: str, service: dict[str, Any]) -> Finding:
    [container, *_] = service["spec"]["template"]["spec"]["containers"]
    if container.get("image") == wanted.PLACEHOLDER:
        return ok("service", f"{case.pipeline.service} waits for its first delivery, {region}")
    ready = condition(service, "Ready")
    if ready.get("status") != "False":
        return ok("service", f"{case.pipeline.service} is ready, {region}")
    message = ready.get("message", "Cloud Run gives no reason")
    failed = ShipError(message, f"./ship logs {case.pipeline.where}")
    return of_error("service", failed, case.context())


def _opening(case: Case, resource: Resource, service: dict[str, Any]) -> Iterator[Finding]:
    """Check that a public service may be opened, with a write that Cloud Run only validates."""
    metadata = service["metadata"]
    annotations = metadata.get("annotations") or {}
    is_open = annotations.get(manifest.INVOKER_CHECK) == "true"
    if case.environment.access != "public" or is_open:
        return
    opened = {**metadata, "annotations": {**annotations, manifest.INVOKER_CHECK: "true"}}
    sent = {**service, "metadata": opened}
    del sent["status"]
    try:
        case.google.write("PUT", "run", f"/v1/{resource.path}", sent, params={"dryRun": "all"})
    except ApiError as error:
        yield of_error("access", error, case.context())
    else:
        yield ok("access", "the service may be open to everyone")


def unread_secrets(case: Case) -> Iterator[Finding]:
    """Name the secrets that have no value in the file, while the local Cloud Run is not up."""
    try:
        in_file = local_secrets.read(case.root)
    except UsageError as error:
        yield wrong("secrets", error.message, error.hint or "")
        return
    for name in (secret.name for secret in resources.secrets(case.pipeline)):
        if name in in_file:
            yield ok("secrets", f"{name} has a value in {local_secrets.FILE}")
        else:
            yield warning(
                "secrets",
                f"{name} has no value in {local_secrets.FILE}; whether the local Cloud Run has one"
                " is not known while it is not up",
                f"./ship up --background && ./ship secrets set {name}",
            )


def secrets(case: Case) -> Iterator[Finding]:
    """Check that every secret that the manifest names exists and has a value."""
    named = resources.secrets(case.pipeline)
    try:
        in_file = {} if case.takes_credentials else local_secrets.read(case.root)
    except UsageError as error:
        yield wrong("secrets", error.message, error.hint or "")
        return
    for one in named:
        name = one.name
        if name in in_file:
            yield ok("secrets", f"{name} has a value in {local_secrets.FILE}")
            continue
        create = f"./ship bootstrap --env {case.pipeline.env}"
        add = add_value(one)
        if not case.takes_credentials:
            create = add = f"./ship secrets set {name}"
        yield secret(case, "secrets", one, create, add)
    if not named and case.takes_credentials:
        yield skipped("secrets", "the manifest names no secrets")


def add_value(one: Resource) -> str:
    """Return the command that gives a secret a value at Google."""
    return f"gcloud secrets versions add {one.name} --project={one.project} --data-file=-"


def secret(case: Case, check: str, one: Resource, create: str, add: str) -> Finding:
    """Check that a secret exists and has a value.

    Args:
        case: the case.
        check: the name of the check.
        one: the secret.
        create: the command that creates it.
        add: the command that gives it a value.
    """
    try:
        case.read(one)
    except NotFound:
        return wrong(check, f"the secret {one.name} does not exist in {one.project}", create)
    except ShipError as error:
        return of_error(check, error, case.context(), looking=True)
    try:
        version = case.google.get("secretmanager", f"/v1/{one.path}/versions/latest")
    except NotFound:
        return wrong(check, f"{one.name} has no value", add, "secret-missing")
    except ShipError as error:
        return of_error(check, error, case.context(), looking=True)
    if version.get("state") == "ENABLED":
        return ok(check, f"{one.name} has a value")
    state = str(version.get("state", "")).lower()
    return wrong(check, f"the newest value of {one.name} is {state}", add)
