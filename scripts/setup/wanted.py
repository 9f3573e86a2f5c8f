"""List what an environment needs before `deliver` works, as data. Sends nothing.

Sources: Google's discovery documents of the APIs named below, and
https://cloud.google.com/artifact-registry/docs/repositories/cleanup-policy.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from scripts.config.pipelines import Pipeline
from scripts.release.manifest import INVOKER_CHECK
from scripts.setup import resources
from scripts.setup.permissions import Federation, Role
from scripts.setup.resources import Account, Resource

Document = dict[str, Any]

# Google's sample: a service must exist before roles can be granted on it. The first delivery
# replaces it. Source: https://cloud.google.com/run/docs/quickstarts/deploy-container
PLACEHOLDER = "us-docker.pkg.dev/cloudrun/container/hello"

_HOME_APIS = ("artifactregistry", "cloudresourcemanager", "iam", "iamcredentials")
_ENV_APIS = ("cloudresourcemanager", "iam", "iamcredentials", "logging", "run")
_DAYS_KEPT = 30


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One request that changes something."""

    method: str
    api: str
    path: str
    body: Document
    params: dict[str, str] = {}


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that must exist.

    Attributes:
        kind: what it is, in one word.
        name: its name, unique among its kind.
        project: its project's ID.
        api: the API that serves it, such as "run".
        path: where it is read.
        create: the request that creates it.
        gcloud: the commands that create it.
        settings: the values that an existing one must have; the keys are an update's mask.
        extensible: whether Google may add fields to the settings.
        changed: the commands that correct the settings.
        undelete: the commands that restore it after a deletion.
    """

    kind: Literal[
        "bucket",
        "images",
        "policy",
        "pool",
        "provider",
        "account",
        "role",
        "secret",
        "service",
        "trigger",
    ]
    name: str
    project: str
    api: str
    path: str
    create: Write
    gcloud: tuple[str, ...]
    settings: Document = {}
    extensible: bool = False
    changed: tuple[str, ...] = ()
    undelete: tuple[str, ...] = ()


def apis(
    plan: Federation, pipelines: Sequence[Pipeline], more: Sequence[Thing] = ()
) -> dict[str, list[str]]:
    """Return the APIs that each project needs: project ID -> names, sorted.

    Args:
        plan: who may do what.
        pipelines: every service that has the environment.
        more: other resources that must exist.
    """
    trigger = ("sts",) if plan.by_jobs else ("cloudbuild", "logging")
    found: dict[str, set[str]] = {plan.provider.project: {*_HOME_APIS, *trigger}}
    for pipeline in pipelines:
        found.setdefault(pipeline.environment.project, set()).update(_ENV_APIS)
        watch = pipeline.environment.rollout.watch
        if watch and watch.source == "metrics":
            found[pipeline.environment.project].add("monitoring")
    for binding in plan.bindings:
        if binding.resource.kind == "secret":
            found.setdefault(binding.resource.project, set()).add("secretmanager")
        if binding.resource.kind == "bucket":
            found.setdefault(binding.resource.project, set()).update(("cloudbuild", "storage"))
    for thing in more:
        found.setdefault(thing.project, set()).add(thing.api)
    return {project: [f"{n}.googleapis.com" for n in sorted(names)] for project, names in
            sorted(found.items())}  # fmt: skip


def things(plan: Federation, pipelines: Sequence[Pipeline]) -> list[Thing]:
    """Return the resources that must exist, in the order in which they can be created."""
    on = [binding.resource for binding in plan.bindings]
    secrets = {r for r in on if r.kind == "secret"}
    places = {plan.provider.project, *(p.environment.project for p in pipelines)}
    return [
        *map(_repository, repositories(plan)),
        *map(_bucket, dict.fromkeys(r for r in on if r.kind == "bucket")),
        *(_pool_and_provider(plan) if plan.by_jobs else []),
        # An account in another project is created by that project's owner.
        *(_account(account) for account in plan.accounts if account.project in places),
        *map(role, plan.roles),
        *map(_secret, sorted(secrets, key=lambda r: r.path)),
        *(_service(p, region) for p in pipelines for region in p.environment.regions),
    ]


def repositories(plan: Federation) -> list[Resource]:
    """Return the repositories of images, sorted."""
    found = {b.resource for b in plan.bindings if b.resource.kind == "repository"}
    return sorted(found, key=lambda resource: resource.path)


def cleanup_policies() -> Document:
    """Return the policy that deletes untagged images. Tagged images stay: their tags are immutable.

    Source: `gcloud artifacts repositories create --help` (--immutable-tags).
    """
    return {
        "delete-untagged": {
            "id": "delete-untagged",
            "action": "DELETE",
            "condition": {"tagState": "UNTAGGED", "olderThan": f"{_DAYS_KEPT * 86400}s"},
        },
    }


def _repository(resource: Resource) -> Thing:
    parent = f"/v1/projects/{resource.project}/locations/{resource.location}/repositories"
    where = f"--location={resource.location} --project={resource.project}"
    condition = {"tagState": "untagged", "olderThan": f"{_DAYS_KEPT}d"}
    policies = [{"name": "delete-untagged", "action": {"type": "Delete"}, "condition": condition}]
    return Thing(
        kind="images",
        name=resource.path,
        project=resource.project,
        api="artifactregistry",
        path=f"/v1/{resource.path}",
        create=Write(
            method="POST",
            api="artifactregistry",
            path=parent,
            params={"repositoryId": resource.name},
            body={
                "format": "DOCKER",
                "description": "Images that Shipway delivers",
                "dockerConfig": {"immutableTags": True},
                "cleanupPolicies": cleanup_policies(),
            },
        ),
        gcloud=(
            f"gcloud artifacts repositories create {resource.name} --repository-format=docker"
            f" --immutable-tags --description='Images that Shipway delivers' {where}",
            f"printf %s {shlex.quote(json.dumps(policies))} |"
            f" gcloud artifacts repositories set-cleanup-policies {resource.name}"
            f" --policy=/dev/stdin --no-dry-run {where}",
        ),
    )


def _bucket(resource: Resource) -> Thing:
    """Return the bucket for the sources and logs of builds, which are deleted after a while."""
    rule = {"rule": [{"action": {"type": "Delete"}, "condition": {"age": _DAYS_KEPT}}]}
    return Thing(
        kind="bucket",
        name=resource.name,
        project=resource.project,
        api="storage",
        path=f"/storage/v1/{resource.path}",
        create=Write(
            method="POST",
            api="storage",
            path="/storage/v1/b",
            params={"project": resource.project},
            body={
                "name": resource.name,
                "location": resource.location,
                "iamConfiguration": {
                    "uniformBucketLevelAccess": {"enabled": True},
                    "publicAccessPrevention": "enforced",
                },
                "lifecycle": rule,
            },
        ),
        gcloud=(
            f"gcloud storage buckets create gs://{resource.name} --location={resource.location}"
            f" --uniform-bucket-level-access --public-access-prevention"
            f" --project={resource.project}",
            f"printf %s {shlex.quote(json.dumps(rule))} |"
            f" gcloud storage buckets update gs://{resource.name} --lifecycle-file=/dev/stdin",
        ),
    )


def _pool_and_provider(plan: Federation) -> list[Thing]:
    provider = plan.provider
    pools = f"/v1/projects/{provider.project}/locations/global/workloadIdentityPools"
    where = f"--location=global --project={provider.project}"
    pool = Thing(
        kind="pool",
        name=provider.pool,
        project=provider.project,
        api="iam",
        path=f"{pools}/{provider.pool}",
        create=Write(
            method="POST",
            api="iam",
            path=pools,
            params={"workloadIdentityPoolId": provider.pool},
            body={"displayName": "Shipway", "description": "Jobs that deliver"},
        ),
        gcloud=(
            f"gcloud iam workload-identity-pools create {provider.pool} --display-name=Shipway"
            f" --description='Jobs that deliver' {where}",
        ),
        undelete=(f"gcloud iam workload-identity-pools undelete {provider.pool} {where}",),
    )
    settings: Document = {
        "attributeMapping": provider.mapping,
        "attributeCondition": provider.condition,
        "oidc": {"issuerUri": provider.issuer},
    }
    mapping = ",".join(f"{name}={text}" for name, text in provider.mapping.items())
    within = f"--workload-identity-pool={provider.pool} {where}"
    flags = (
        f" --issuer-uri={provider.issuer} --attribute-mapping={quoted(mapping)}"
        f" --attribute-condition={quoted(provider.condition)} {within}"
    )
    base = f"{pools}/{provider.pool}/providers"
    named = "gcloud iam workload-identity-pools providers"
    return [
        pool,
        Thing(
            kind="provider",
            name=provider.id,
            project=provider.project,
            api="iam",
            path=f"{base}/{provider.id}",
            create=Write(
                method="POST",
                api="iam",
                path=base,
                params={"workloadIdentityPoolProviderId": provider.id},
                body={"displayName": "GitHub", **settings},
            ),
            gcloud=(f"{named} create-oidc {provider.id} --display-name=GitHub{flags}",),
            settings=settings,
            changed=(f"{named} update-oidc {provider.id}{flags}",),
            undelete=(f"{named} undelete {provider.id} {within}",),
        ),
    ]


def _account(account: Account) -> Thing:
    base = f"/v1/projects/{account.project}/serviceAccounts"
    fields = {"displayName": f"Shipway: {account.purpose}"[:100]}
    return Thing(
        kind="account",
        name=account.email,
        project=account.project,
        api="iam",
        path=f"{base}/{account.email}",
        create=Write(
            method="POST",
            api="iam",
            path=base,
            body={"accountId": account.id, "serviceAccount": fields},
        ),
        gcloud=(
            f"gcloud iam service-accounts create {account.id} --project={account.project}"
            f" --display-name={quoted(fields['displayName'])}",
        ),
    )


def role(wanted: Role) -> Thing:
    """Return a custom role.

    Source: https://cloud.google.com/iam/docs/creating-custom-roles.
    """
    base = f"/v1/projects/{wanted.project}/roles"
    settings: Document = {"includedPermissions": [*wanted.permissions], "stage": "GA"}
    named = f"--project={wanted.project}"
    flags = f"--permissions={','.join(wanted.permissions)} --stage=GA {named}"
    return Thing(
        kind="role",
        name=wanted.id,
        project=wanted.project,
        api="iam",
        path=f"{base}/{wanted.id}",
        create=Write(
            method="POST",
            api="iam",
            path=base,
            body={"roleId": wanted.id, "role": {"title": wanted.title, **settings}},
        ),
        gcloud=(f"gcloud iam roles create {wanted.id} --title={quoted(wanted.title)} {flags}",),
        settings=settings,
        changed=(f"gcloud iam roles update {wanted.id} {flags}",),
        undelete=(f"gcloud iam roles undelete {wanted.id} {named}",),
    )


def _secret(resource: Resource) -> Thing:
    return Thing(
        kind="secret",
        name=resource.name,
        project=resource.project,
        api="secretmanager",
        path=f"/v1/{resource.path}",
        create=Write(
            method="POST",
            api="secretmanager",
            path=f"/v1/projects/{resource.project}/secrets",
            params={"secretId": resource.name},
            body={"replication": {"automatic": {}}},
        ),
        gcloud=(
            f"gcloud secrets create {resource.name} --replication-policy=automatic"
            f" --project={resource.project}",
        ),
    )


def _service(pipeline: Pipeline, region: str) -> Thing:
    """Return a service that runs Google's sample until the first delivery.

    Creating one takes a permission on the whole project, and opening one takes a change of policy.
    The person who sets the project up has both, so the deployer needs neither.
    """
    project, name = pipeline.environment.project, pipeline.service
    parent = f"/v1/projects/{project}/locations/{region}/services"
    is_open = pipeline.environment.access == "public"
    account = resources.runtime(pipeline).email
    body: Document = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": project,
            "annotations": {INVOKER_CHECK: str(is_open).lower()},
        },
        "spec": {
            "template": {
                "metadata": {"annotations": {"autoscaling.knative.dev/maxScale": "1"}},
                "spec": {"serviceAccountName": account, "containers": [{"image": PLACEHOLDER}]},
            }
        },
    }
    where = f"--region={region} --project={project}"
    check = "--no-invoker-iam-check" if is_open else "--invoker-iam-check"
    return Thing(
        kind="service",
        name=f"{name} in {region}",
        project=project,
        api="run",
        path=f"{parent}/{name}",
        create=Write(method="POST", api="run", path=parent, body=body),
        gcloud=(
            f"gcloud run deploy {name} --image={PLACEHOLDER} --service-account={account}"
            f" --max-instances=1 {check} {where}",
        ),
        settings={INVOKER_CHECK: str(is_open).lower()},
        changed=(f"gcloud run services update {name} {check} {where}",),
    )


def quoted(text: str) -> str:
    """Quote a word for a shell, with double quotes if it holds single ones."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)
