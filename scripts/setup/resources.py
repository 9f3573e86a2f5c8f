"""What a service's files name at Google: accounts, and the resources that roles are given on.

Nothing here sends a request.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from scripts.config import secret_name
from scripts.config.image_reference import bucket_of
from scripts.config.pipelines import Pipeline
from scripts.errors import UsageError
from scripts.release import manifest


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A service account and its purpose."""

    email: str
    purpose: str

    @property
    def id(self) -> str:
        """The part before the @: 6 to 30 characters."""
        return self.email.partition("@")[0]

    @property
    def project(self) -> str:
        """Its project."""
        return self.email.partition("@")[2].partition(".")[0]

    @property
    def member(self) -> str:
        """Its name in policies."""
        return f"serviceAccount:{self.email}"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that roles are given on."""

    kind: Literal["project", "repository", "account", "service", "secret", "bucket"]
    project: str
    name: str = ""
    location: str = ""

    @property
    def api(self) -> str:
        """The API that has its policy."""
        return {
            "project": "cloudresourcemanager",
            "repository": "artifactregistry",
            "account": "iam",
            "service": "run",
            "secret": "secretmanager",
            "bucket": "storage",
        }[self.kind]

    @property
    def path(self) -> str:
        """Its name in Google's APIs."""
        base = f"projects/{self.project}"
        return {
            "project": base,
            "repository": f"{base}/locations/{self.location}/repositories/{self.name}",
            "account": f"{base}/serviceAccounts/{self.name}",
            "service": f"{base}/locations/{self.location}/services/{self.name}",
            "secret": f"{base}/secrets/{self.name}",
            "bucket": f"b/{self.name}",
        }[self.kind]


def runtime(pipeline: Pipeline) -> Account:
    """Return the account that a service runs as, which its files name.

    Raises:
        UsageError: they name none, or not a service account.
    """
    named = runs_as(pipeline)
    if not named:
        raise UsageError(
            f"pipelines/{pipeline.service}/{pipeline.env}.yaml: no serviceAccountName in the"
            " overlay: the service would run as the project's default account, which often may"
            " change everything",
            "add spec.template.spec.serviceAccountName:"
            f" {pipeline.service}-runtime@{pipeline.environment.project}.iam.gserviceaccount.com",
        )
    if not re.fullmatch(r"[a-z0-9-]+@[a-z0-9-]+\.iam\.gserviceaccount\.com", named):
        raise UsageError(
            f"pipelines/{pipeline.service}/{pipeline.env}.yaml: '{named}' is not a service account:"
            " NAME@PROJECT.iam.gserviceaccount.com"
        )
    return Account(email=named, purpose=f"{pipeline.service} runs as this account")


def runs_as(pipeline: Pipeline) -> str:
    """Return the account that a service's files name to run as; "" for the project's default."""
    return str(_template(pipeline)["spec"].get("serviceAccountName") or "")


def builder(pipeline: Pipeline) -> Account | None:
    """Return the account that Cloud Build builds as; None where it does not build.

    Raises:
        UsageError: the environment's file names none.
    """
    environment = pipeline.environment
    if environment.builder != "cloud-build" or environment.after:
        return None
    if not environment.builds_as:
        raise UsageError(
            f"pipelines/{pipeline.service}/{pipeline.env}.yaml: no builds_as: Cloud Build would"
            " build as the project's default account, which often may change everything",
            f"add builds_as: {pipeline.service}-builder@{images(pipeline).project}"
            ".iam.gserviceaccount.com",
        )
    return Account(email=environment.builds_as, purpose=f"builds {pipeline.service}")


def sources(pipeline: Pipeline) -> Resource:
    """Return the bucket for the sources and logs of a service's builds."""
    registry = images(pipeline)
    return Resource(
        kind="bucket",
        project=registry.project,
        location=pipeline.environment.regions[0],
        name=bucket_of(registry.project),
    )


def secrets(pipeline: Pipeline) -> list[Resource]:
    """Return the secrets that a service's manifest names, in order of their names.

    A name can be an alias of a secret in another project.
    Source: https://cloud.google.com/run/docs/configuring/services/secrets
    """
    names = set()
    template = _template(pipeline)
    for container in template["spec"].get("containers") or []:
        for variable in container.get("env") or []:
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
            names.add(reference.get("name"))
    for volume in template["spec"].get("volumes") or []:
        names.add((volume.get("secret") or {}).get("secretName"))
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    elsewhere = {}
    for entry in str(annotations.get("run.googleapis.com/secrets", "")).split(","):
        alias, _, path = entry.strip().partition(":")
        if found := secret(path):
            elsewhere[alias] = found
    project = pipeline.environment.project
    return [
        elsewhere.get(name, Resource(kind="secret", project=project, name=name))
        for name in sorted(filter(None, names))
    ]


def secret(full_name: str) -> Resource | None:
    """Return a secret by its full name; None if the text is not such a name."""
    found = secret_name.parse(full_name)
    return Resource(kind="secret", project=found[0], name=found[1]) if found else None


def of_account(account: Account) -> Resource:
    """Return a service account as a resource that roles are given on."""
    return Resource(kind="account", project=account.project, name=account.email)


def services(pipeline: Pipeline) -> list[Resource]:
    """Return the service in each of its regions."""
    return [
        Resource(
            kind="service",
            project=pipeline.environment.project,
            location=region,
            name=pipeline.service,
        )
        for region in pipeline.environment.regions
    ]


def images(pipeline: Pipeline) -> Resource:
    """Return the Artifact Registry repository of a service's images."""
    host, project, name = pipeline.environment.registry.split("/")
    location = host.removesuffix("-docker.pkg.dev")
    return Resource(kind="repository", project=project, location=location, name=name)


def _template(pipeline: Pipeline) -> dict[str, Any]:
    merged = manifest.overlay(pipeline.manifest, pipeline.overlay)
    template: dict[str, Any] = merged["spec"]["template"]
    return template
